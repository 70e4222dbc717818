# shellcheck shell=sh
# applets.sh: the commands of the initramfs, made of this host's busybox. Sourced, also by
# qemu-tests/23-leases.

# link_applets DIR [all]: links to those that init itself may use, which are the first block of the
# list, or to all.
link_applets() {
	local applet empty_line=q
	[ "${2-}" != all ] || empty_line=d
	mkdir -p "$1"
	sed "/^#/d; /^\$/$empty_line" "$TOP/initramfs/applets.list" | while read -r applet; do
		[ -z "$applet" ] || ln -s "$(command -v busybox)" "$1/$applet"
	done
}
