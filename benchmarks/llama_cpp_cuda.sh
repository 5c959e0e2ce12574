#!/bin/bash
# llama.cpp's library for CUDA on Hopper, in pieces: llama_cpp_cuda.sh OUT [SECONDS], with
#   LLAMA_SOURCES  llama.cpp's sources: vendor/llama.cpp of the unpacked sdist of llama-cpp-python
#   LLAMA_INTO     where the finished library goes, too: llama_cpp/lib of the installed package; may be left out
#   LLAMA_BUILD    where it is built, the same in every call that goes on; by default /tmp/llama_cpp_cuda
#   LLAMA_JOBS     by default one a core
# OUT/lib gets the stripped libraries, or after SECONDS what was built so far, with which the next call goes on; where
# they are whole already, nothing is built. Flash attention is left out: the driver of these trials does not use it.
# No GPU is needed to build, nor a toolkit: NVIDIA's wheels hold all of it. With
#   pip install nvidia-cuda-{nvcc,crt,runtime,cccl}==13.0.* nvidia-nvvm==13.0.* nvidia-cublas==13.0.* cmake ninja
#   export CUDACXX=$root/bin/nvcc CUDAToolkit_ROOT=$root CUBLAS_ROOT=$root  # root: their folder nvidia/cu13
# the libraries are those of that version, and a driver of CUDA 13.0 or later runs them. The package around them is
#   CMAKE_ARGS=-DLLAMA_BUILD=OFF pip wheel --no-deps llama-cpp-python==VERSION
set -eu
out=$1 seconds=${2:-36000}
build=${LLAMA_BUILD:-/tmp/llama_cpp_cuda} jobs=${LLAMA_JOBS:-$(nproc --all)} cuda=${WITH_CUDA:-ON}
began=$(date +%s)
mkdir -p "$out/lib"
out=$(realpath "$out")
names="llama ggml ggml-base ggml-cpu"
[ "$cuda" = ON ] && names="$names ggml-cuda"

install_libraries() {
    [ -z "${LLAMA_INTO:-}" ] && return
    mkdir -p "$LLAMA_INTO"
    for file in "$out"/lib/lib*.so*; do
        cp "$file" "$LLAMA_INTO/"
        plain=$(basename "$file" | sed 's/\.so.*/.so/')
        [ -e "$LLAMA_INTO/$plain" ] || ln -s "$(basename "$file")" "$LLAMA_INTO/$plain"
    done
}

if [ -e "$out/lib/whole" ]; then
    echo "built before: $(cat "$out/lib/whole")"
    install_libraries
    exit 0
fi
: "${LLAMA_SOURCES:?the sources of llama.cpp}"
src=$(realpath "$LLAMA_SOURCES")
# What is built counts while it is younger than its sources, and every copy makes those young.
find "$src" -exec touch -h -d 2020-01-01 {} +
mkdir -p "$build"
if [ -e "$out/lib/objects.tar.zst" ] && [ ! -e "$build/cmake/build.ninja" ]; then
    tar -C "$build" -I zstd -xf "$out/lib/objects.tar.zst"
    echo "goes on with $(find "$build" -name '*.o' | wc -l) objects"
fi
mkdir -p "$build/libs" "$build/include"
# cuBLAS: headers and library lie in NVIDIA's wheel beside torch.
find_blas() {
    python3 -c '
import importlib.util, pathlib
spec = importlib.util.find_spec("nvidia")
roots = [pathlib.Path(p) for p in (spec.submodule_search_locations if spec else [])]
found = [lib.parent.parent for root in roots for lib in sorted(root.glob("*/lib/libcublas.so*"))]
print(found[0] if found else "")'
}
args=()
if [ "$cuda" = ON ]; then
    blas=${CUBLAS_ROOT:-$(find_blas)}
    echo "cuBLAS: ${blas:-of the toolkit}"
    if [ -n "$blas" ]; then
        for name in cublas cublasLt cudart; do
            found=$(ls "$blas"/lib/lib$name.so* 2>/dev/null | head -1)
            [ -z "$found" ] || ln -sf "$found" "$build/libs/lib$name.so"
        done
        args+=("-DCUDA_cublas_LIBRARY=$build/libs/libcublas.so" "-DCUDA_cublasLt_LIBRARY=$build/libs/libcublasLt.so")
        [ ! -e "$build/libs/libcudart.so" ] || args+=("-DCUDA_CUDART=$build/libs/libcudart.so")
        export CPATH="${CPATH:+$CPATH:}$build/include" LIBRARY_PATH="$blas/lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
        ln -sf "$blas"/include/cublas*.h "$build/include/"
    fi
    # The driver's library is there at run time; to link, one of its name with its functions does.
    for name in cuDeviceGet cuDeviceGetAttribute cuGetErrorString cuMemAddressFree cuMemAddressReserve cuMemCreate \
        cuMemGetAllocationGranularity cuMemMap cuMemRelease cuMemSetAccess cuMemUnmap; do echo "int $name(void) { return 100; }"; done |
        gcc -shared -fPIC -x c - -Wl,-soname,libcuda.so.1 -o "$build/libs/libcuda.so"
    args+=("-DCUDA_cuda_driver_LIBRARY=$build/libs/libcuda.so")
fi
if [ ! -e "$build/cmake/build.ninja" ]; then
    cmake -S "$src" -B "$build/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_POLICY_VERSION_MINIMUM=3.18 \
        -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "-DCMAKE_INSTALL_RPATH=\$ORIGIN" \
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_ALL_WARNINGS=OFF \
        -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=ON -DGGML_CUDA_NCCL=OFF -DGGML_CUDA_GRAPHS=ON \
        -DGGML_CUDA_FA=OFF -DGGML_CUDA_FA_ALL_QUANTS=OFF -DGGML_CUDA_COMPRESSION_MODE=none \
        -DGGML_CUDA="$cuda" -DCMAKE_CUDA_ARCHITECTURES=90-real "${args[@]}" >"$out/configure.log" 2>&1 ||
        { tail -30 "$out/configure.log"; exit 1; }
fi
[ -z "${CONFIGURE_ONLY:-}" ] || exit 0
status=0
# shellcheck disable=SC2086
timeout --signal=INT --kill-after=10 "$((seconds - ($(date +%s) - began)))" \
    ninja -C "$build/cmake" -j "$jobs" $names >"$out/ninja.log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    grep -E "error|FAILED" "$out/ninja.log" | head -20 || true
    # In the words of `timeout`: 124 is its own doing, 130 what ninja answers an interrupt with, 137 a kill.
    case $status in 124 | 130 | 137 | 2) ;; *) echo "ninja ended with $status"; exit 1 ;; esac
    echo "cut with $(find "$build" -name '*.o' | wc -l) objects: $(tail -1 "$out/ninja.log")"
    tar -C "$build" -I 'zstd -T0 -3' -cf "$out/lib/objects.tar.zst.part" cmake
    mv "$out/lib/objects.tar.zst.part" "$out/lib/objects.tar.zst"
    exit 9
fi
for lib in $names; do
    for file in $(find "$build/cmake" -name "lib$lib.so*" -type f); do
        soname=$(readelf -d "$file" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')
        cp "$file" "$out/lib/$soname"
        strip --strip-unneeded "$out/lib/$soname"
    done
done
rm -f "$out/lib/objects.tar.zst"
echo "$names in $(($(date +%s) - began)) s on $jobs cores" >"$out/lib/whole"
install_libraries
ls -la "$out/lib"
