#!/bin/bash
# llama.cpp's library for CUDA on Hopper, F32, F16 and BF16 only: llama_cpp_cuda.sh SOURCES BUILD LIBRARIES [JOBS]
# Flash attention and the products of quantized types are left out; what F32, F16 and BF16 use is as upstream has it.
# SOURCES is the sdist of llama-cpp-python, unpacked (its vendor/llama.cpp); LIBRARIES is where its package looks,
# llama_cpp/lib. No GPU is needed to build, nor a toolkit: NVIDIA's wheels hold all of it. With
#   pip install nvidia-cuda-{nvcc,crt,runtime,cccl}==13.0.* nvidia-nvvm==13.0.* nvidia-cublas==13.0.* cmake ninja
#   export CUDACXX=$root/bin/nvcc CUDAToolkit_ROOT=$root CUBLAS_ROOT=$root  # root: their folder nvidia/cu13
# the libraries are those of that version, and a driver of CUDA 13.0 or later runs them.
set -eu
src=$(realpath "$1") build=$2 into=$3 jobs=${4:-$(nproc --all)}
mkdir -p "$build" "$into" "$build/libs"
build=$(realpath "$build") into=$(realpath "$into")
# cuBLAS: headers and library lie in NVIDIA's wheel beside torch.
find_blas() {
    python3 -c '
import importlib.util, pathlib
spec = importlib.util.find_spec("nvidia")
roots = [pathlib.Path(p) for p in (spec.submodule_search_locations if spec else [])]
found = [lib.parent.parent for root in roots for lib in sorted(root.glob("*/lib/libcublas.so*"))]
print(found[0] if found else "")'
}
blas=${CUBLAS_ROOT:-$(find_blas)}
echo "cuBLAS: ${blas:-of the toolkit}"
args=()
if [ -n "$blas" ]; then
    for name in cublas cublasLt cudart; do
        found=$(ls "$blas"/lib/lib$name.so* 2>/dev/null | head -1)
        [ -z "$found" ] || ln -sf "$found" "$build/libs/lib$name.so"
    done
    args+=("-DCUDA_cublas_LIBRARY=$build/libs/libcublas.so" "-DCUDA_cublasLt_LIBRARY=$build/libs/libcublasLt.so")
    [ ! -e "$build/libs/libcudart.so" ] || args+=("-DCUDA_CUDART=$build/libs/libcudart.so")
    export CPATH="${CPATH:+$CPATH:}$build/include" LIBRARY_PATH="$blas/lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
    mkdir -p "$build/include" && ln -sf "$blas"/include/cublas*.h "$build/include/"
fi
# The driver's library is there at run time; to link, one of its name with its functions does.
for name in cuDeviceGet cuDeviceGetAttribute cuGetErrorString cuMemAddressFree cuMemAddressReserve cuMemCreate \
    cuMemGetAllocationGranularity cuMemMap cuMemRelease cuMemSetAccess cuMemUnmap; do echo "int $name(void) { return 100; }"; done |
    gcc -shared -fPIC -x c - -Wl,-soname,libcuda.so.1 -o "$build/libs/libcuda.so"
args+=("-DCUDA_cuda_driver_LIBRARY=$build/libs/libcuda.so")
cmake -S "$src" -B "$build/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_POLICY_VERSION_MINIMUM=3.18 \
    -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON "-DCMAKE_INSTALL_RPATH=\$ORIGIN" \
    -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_ALL_WARNINGS=OFF \
    -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=ON -DGGML_CUDA_NCCL=OFF -DGGML_CUDA_GRAPHS=ON \
    -DGGML_CUDA_COMPRESSION_MODE=none \
    -DGGML_CUDA="${WITH_CUDA:-ON}" -DCMAKE_CUDA_ARCHITECTURES=90-real "${args[@]}" >"$build/configure.log" 2>&1 ||
    { tail -30 "$build/configure.log"; exit 1; }
targets=(llama ggml ggml-base ggml-cpu)
[ "${WITH_CUDA:-ON}" = ON ] && targets+=(ggml-cuda)
[ -z "${CONFIGURE_ONLY:-}" ] || exit 0
ninja -C "$build/cmake" -j "$jobs" "${targets[@]}" >"$build/ninja.log" 2>&1 || { grep -E "error|FAILED" "$build/ninja.log" | head -20; exit 1; }
for lib in llama ggml ggml-base ggml-cpu ggml-cuda; do
    for file in $(find "$build/cmake" -name "lib$lib.so*" -type f); do
        soname=$(readelf -d "$file" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')
        cp "$file" "$into/$soname"
        [ "$soname" = "lib$lib.so" ] || ln -sf "$soname" "$into/lib$lib.so"
        strip --strip-unneeded "$into/$soname"
    done
done
ls -la "$into"
