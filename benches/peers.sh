#!/bin/busybox sh
# Runs `benches peers` in a guest of `cargo xtask bench`: unpacks the small Debian that the guest has on its disk, which has the
# other watchers, and enters it.
set -eu
busybox mkdir /node
busybox mount -t tmpfs tmpfs /node
busybox tar -xf /dev/nvme0n1 -C /node
busybox mount -t debugfs debugfs /sys/kernel/debug
for folder in dev proc sys run tmp peers; do
    busybox mkdir -p "/node/$folder"
    busybox mount --rbind "/$folder" "/node/$folder"
done
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
status=0
busybox chroot /node /peers/benches peers --agent /peers/oom-watcher "$@" >/tmp/results || status=$?
busybox sed 's/^/oom-watcher-result: /' /tmp/results
exit "$status"
