#!/bin/busybox sh
# The first process of an installer that was booted from the network. It speaks docs/src/boot-protocol.md.
#
# Arguments of the kernel: autobuild.url, and either
#   disk.url, disk.sha256 of the OSImage    write this image to the disk and start again from it, or
#   autobuild.action=wipe                   overwrite the disk with zeros and turn the machine off.

# busybox alone: it runs its applets by name, without links.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
# Addresses may hold what a shell would take for patterns.
set -f

for argument in $(cat /proc/cmdline); do
  value=${argument#*=}
  case $argument in
    autobuild.url=*) url=$value ;;
    autobuild.action=*) action=$value ;;
    disk.url=*) image=$value ;;
    disk.sha256=*) sum=$value ;;
  esac
done

say() { echo "installer: $*"; }

# post REPORT FORM: repeats until it is taken. Fails when the session is over.
post() {
  while :; do
    said=$(timeout 20 wget -q -O /dev/null --post-data "$2" "$url/$1" 2>&1) && return 0
    case $said in
      *" 404 "*) say "$1: the session is over"; return 1 ;;
    esac
    say "$1: $said"
    sleep 1
  done
}

# Nothing of this machine goes on: a person looks at the reason.
fail() {
  say "failed: $*"
  post failed "reason=$(echo "$*" | tr ' ' '+')"
  poweroff -f
}

# progress DONE TOTAL MESSAGE
progress() { post progress "percent=$(($1 * 100 / $2))&message=$3" || poweroff -f; }

while read -r module; do insmod "/lib/modules/$module.ko" || say "no module $module"; done </lib/modules/order
ip link set lo up
tries=0
while [ ! -e /sys/class/net/eth0 ] || [ ! -b /dev/vda ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || break
  sleep 0.1
done
ip link set eth0 up
udhcpc -i eth0 -n -q -f -t 20 -T 1 -s /bin/dhcp.sh >/dev/null 2>&1 || { say "no address"; poweroff -f; }
# Which machine this is: a session is for one of them.
dmi() { cat "/sys/class/dmi/id/$1" 2>/dev/null | tr ' ' '+'; }
post booted "uuid=$(dmi product_uuid)&serial=$(dmi product_serial)" || poweroff -f
[ -b /dev/vda ] || fail "there is no disk /dev/vda"
disk=$(($(cat /sys/block/vda/size) * 512))
step=$((8 * 1024 * 1024))

# copy FROM TOTAL MESSAGE: writes to the disk in steps, and says how far it is.
copy() {
  at=0
  while [ $at -lt "$2" ]; do
    part=$(($2 - at))
    [ $part -le $step ] || part=$step
    skip=$at
    [ "$1" != /dev/zero ] || skip=0
    dd if="$1" of=/dev/vda bs=1M skip=$skip seek=$at count=$part iflag=skip_bytes,count_bytes oflag=seek_bytes \
      conv=notrunc,fsync status=none || fail "cannot write to the disk at $at"
    at=$((at + part))
    progress $at "$2" "$3"
  done
}

# Reads come from the disk again, not from memory.
forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }

if [ "$action" = wipe ]; then
  say "wiping $disk bytes"
  progress 0 1 wiping
  copy /dev/zero $disk wiping
  forget
  [ "$(tr -d '\000' </dev/vda | head -c 1 | wc -c)" = 0 ] || fail "the disk does not read zeros"
  say "wiped"
  post installed ""
  poweroff -f
fi

say "fetching the image"
progress 0 1 fetching
timeout 120 wget -q -O /tmp/image "$image" || fail "cannot fetch the image"
[ "$(sha256sum /tmp/image | cut -d' ' -f1)" = "$sum" ] || fail "the image has another sha256"
size=$(stat -c %s /tmp/image)
[ "$size" -le $disk ] || fail "the image is larger than the disk"
copy /tmp/image "$size" writing
forget
[ "$(head -c "$size" /dev/vda | sha256sum | cut -d' ' -f1)" = "$sum" ] || fail "the disk reads something else"
# Whom the installed system tells that it runs: in the gap between the boot record and the first partition.
echo "url=$url" >/tmp/call-home
dd if=/dev/zero of=/dev/vda bs=512 seek=64 count=8 conv=notrunc,fsync status=none || fail "cannot write the call-home"
dd if=/tmp/call-home of=/dev/vda bs=512 seek=64 conv=notrunc,fsync status=none || fail "cannot write the call-home"
say "written, starting again"
reboot -f
