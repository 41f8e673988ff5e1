#!/bin/busybox sh
# The first process of the installed system: it tells whom it must that it runs, and waits for the power button.

/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

while read -r module; do insmod "/lib/modules/$module.ko" || echo "no module $module"; done </lib/modules/order
# Before it says that it is up: a press of the button is lost on nobody from then on.
for event in /sys/class/input/event*; do
  [ "$(cat "$event/device/name")" = "Power Button" ] && exec 3<"/dev/input/${event##*/}"
done
ip link set lo up
tries=0
while [ ! -e /sys/class/net/eth0 ] || [ ! -b /dev/vda ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || break
  sleep 0.1
done
ip link set eth0 up
udhcpc -i eth0 -n -q -f -t 20 -T 1 -s /bin/dhcp.sh >/dev/null 2>&1 || echo "no address"
echo "system $(cat /etc/release) is up"

# What the installer left: only the first start after an installation has somebody to tell.
url=$(dd if=/dev/vda bs=512 skip=64 count=8 status=none | tr -d '\000' | sed -n 's/^url=//p')
while [ -n "$url" ]; do
  said=$(timeout 20 wget -q -O /dev/null --post-data "" "$url/installed" 2>&1) && break
  case $said in
    *" 404 "*) echo "nobody waits for this installation"; break ;;
  esac
  echo "installed: $said"
  sleep 1
done
[ -z "$url" ] || dd if=/dev/zero of=/dev/vda bs=512 seek=64 count=8 conv=notrunc,fsync status=none

[ -e /proc/self/fd/3 ] || while :; do sleep 3600; done
head -c 24 <&3 >/dev/null
echo "system $(cat /etc/release) shuts down"
sync
poweroff -f
