#!/usr/bin/env bash
# Runs a command where no device file of a GPU exists, in a mount namespace with a /dev of its own, so that a machine
# with GPUs measures what a machine without one covers: without_devices.sh python tests/coverage/run.py DIRECTORY
exec unshare -rm bash -c '
set -e
d=$(mktemp -d); mount -t tmpfs tmpfs $d
for f in null zero full random urandom tty; do touch $d/$f; mount --bind /dev/$f $d/$f; done
for f in pts shm; do mkdir $d/$f; mount --rbind /dev/$f $d/$f; done
ln -s /proc/self/fd $d/fd; ln -s fd/0 $d/stdin; ln -s fd/1 $d/stdout; ln -s fd/2 $d/stderr; ln -s pts/ptmx $d/ptmx
mount --rbind $d /dev
exec "$@"' hidden "$@"
