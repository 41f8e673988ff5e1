#!/bin/sh
# Stands in for QEMU: tells its arguments, answers every command, and has a guest that shuts down when it is asked to.
echo "$*" >&2
echo '{"QMP": {"version": {}, "capabilities": []}}'
while read -r line; do
  echo '{"event": "RTC_CHANGE"}'
  case $line in
    *'"quit"'*) exit 0 ;;
    *'"system_reset"'*) echo "reset" >&2 ;;
  esac
  echo '{"return": {}}'
  case $line in *'"system_powerdown"'*) exit 0 ;; esac
done
