#!/bin/sh
# A machine whose pid 1 is the systemd of this one, in namespaces of its own: processes, mounts, network, cgroups. What it
# writes is in memory. It has the units of the project, and the program, as an administrator would have installed them.
#
#   systemd.sh probe              whether such a machine can be had here
#   systemd.sh run FOLDER         prints the id of its first process, and ends it once standard input ends
#   systemd.sh inside FOLDER      the first process, until it becomes systemd
#
# FOLDER is an empty one; PROJECT and PROGRAM are the paths of the project and of the program. With LOWER, the folder of
# another Debian, the machine is that one: it has no PROGRAM and no unit of the project, and keeps what its packages have.
set -eu

# systemd of a container takes the cgroup that it is started in for the root of all.
group() {
    root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [ -n "$root" ]
    group="$root/nudged-test-$$"
    mkdir "$group"
}

# Kills all that is in it, and waits until it is empty.
remove_group() {
    echo 1 >"$group/cgroup.kill" 2>/dev/null || kill -KILL "$machine" 2>/dev/null || true
    wait || true
    for _ in $(seq 100); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && return
        sleep 0.05
    done
}

run() {
    group
    machine=
    trap remove_group EXIT
    # shellcheck disable=SC2016
    sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group" \
        unshare --mount --pid --net --uts --ipc --cgroup --propagation private --fork --kill-child "$0" "$@" \
        </dev/null &
    machine=$!
}

# The files: this machine's, with whatever is written to them in memory.
files() {
    folder=$1 root=$1/root
    mount -t tmpfs -o size=256m tmpfs "$folder"
    mkdir "$folder/upper" "$folder/work" "$root"
    mount -t overlay -o "lowerdir=${LOWER:-/},upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
    mount -t proc proc "$root/proc"
    # systemd.service(8) of a container leaves the kernel's settings alone if it cannot write them.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    [ -n "${LOWER:-}" ] || mount -t tmpfs -o mode=755 tmpfs "$root/var/lib"
    for path in dev run tmp var/log etc/systemd/system; do
        mount -t tmpfs -o mode=755 tmpfs "$root/$path"
    done
    chmod 1777 "$root/tmp"
    mkdir "$root/dev/shm" "$root/dev/pts"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
        mknod -m 666 "$root/dev/${node%% *}" c ${node#* }
    done
    : >"$root/etc/machine-id"
    # Two folders for the program, as those of two releases.
    for release in ${PROGRAM:+1 2}; do
        mkdir -p "$root/opt/nudged/$release"
        mount --bind "$(dirname "$PROGRAM")" "$root/opt/nudged/$release"
    done
    units "$root/etc/systemd/system"
    ip link set lo up
    cd "$root"
    mkdir tmp/old
    pivot_root . tmp/old
    umount -l /tmp/old
    rmdir /tmp/old
    # Credentials of services come by propagation.
    mount --make-rshared /
}

# Those of the project, a journal, and of what they depend on the names only.
units() {
    [ -z "$PROGRAM" ] || cp "$PROJECT"/.systemd/nudged.* "$1"
    mkdir "$1/idle.target.wants"
    for unit in service socket; do
        cp "/lib/systemd/system/systemd-journald.$unit" "$1"
        ln -s "../systemd-journald.$unit" "$1/idle.target.wants"
    done
    for target in idle sysinit basic sockets network multi-user shutdown umount local-fs; do
        printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"$1/$target.target"
    done
}

case $1 in
probe)
    for program in /lib/systemd/systemd nsenter unshare ip curl; do command -v "$program"; done
    folder=$(mktemp -d)
    PROGRAM=/bin/true PROJECT=$(dirname "$0")/../../..
    export PROGRAM PROJECT
    run try "$folder"
    wait "$machine" && code=0 || code=1
    rmdir "$folder"
    exit "$code"
    ;;
try)
    files "$2"
    ;;
run)
    run inside "$2"
    echo "$machine"
    cat >/dev/null
    ;;
inside)
    files "$2"
    exec env -i container=nudged-test PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        SYSTEMD_UNIT_PATH="/etc/systemd/system${LOWER:+:/usr/lib/systemd/system}" SYSTEMD_GENERATOR_PATH=/nonexistent \
        /lib/systemd/systemd --system --unit=idle.target --log-target=journal --show-status=no
    ;;
esac
