#!/bin/busybox sh
# Runs the proofs in a guest of `cargo xtask image --guest`: unpacks a small Debian with Python and the container runtimes, and
# enters it. It is a mount of its own: runtimes pivot their containers' root, which the kernel refuses in an initramfs.
set -eu
busybox mkdir /node
busybox mount -t tmpfs tmpfs /node
for archive in system proof; do
    busybox tar -xf "/$archive.tar" -C /node
    busybox rm "/$archive.tar"
done
for folder in dev proc sys run tmp; do
    busybox mkdir -p "/node/$folder"
    busybox mount --rbind "/$folder" "/node/$folder"
done
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/proof/python OOM_WATCHER_PROOF=/proof OOM_WATCHER_RESULTS=/tmp/results OOM_WATCHER_GUEST=1
# The arguments are words of pytest's -k, of which one has to be found.
words=
for word in "$@"; do words="${words:+$words or }$word"; done
status=0
busybox chroot /node python3 -m pytest -q -s --color=no -p no:cacheprovider --rootdir=/proof/tests /proof/tests ${words:+-k "$words"} || status=$?
busybox sed 's/^/oom-watcher-result: /' /tmp/results || true
exit "$status"
