#!/bin/sh
# `make setup-raspi4b`: a newer QEMU from this Debian release's backports, beside the system's, once. No root.
#
#   qemu-backports.sh            target/qemu-backports/qemu is then a QEMU to use with QEMU=
#
# Unpacked under target/qemu-backports with the libraries the system lacks; run by a wrapper that finds both.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/apt-private.sh
out=$PWD/target/qemu-backports

has_board() { "$1" -machine help 2>/dev/null | grep -q '^raspi4b '; }

if [ -x "$out/qemu" ]; then exit 0; fi
if command -v qemu-system-aarch64 >/dev/null && has_board qemu-system-aarch64; then
    say found "the system's QEMU has raspi4b: nothing to fetch"
    exit 0
fi
command -v dpkg >/dev/null || refuse "no QEMU with raspi4b here (version 9 or later), and no Debian to fetch one from; use QEMU=path"
rm -rf "$out"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
say read "Debian's package lists with $codename-backports"
apt_hint="this system offers no $codename-backports; bring a QEMU of version 9 or later and use QEMU=path"
apt_private target/qemu-backports/apt "$(dpkg --print-architecture)" /var/lib/dpkg/status "$codename-backports"
apt_hint=
version=$(APT_CONFIG=$apt_folder/apt.conf apt-cache madison qemu-system-arm | awk -v from="$codename-backports/" 'index($6, from) { print $3; exit }')
[ -n "$version" ] || refuse "$codename-backports has no QEMU; bring one of version 9 or later and use QEMU=path"

# What is missing for it, as apt counts it; no recommendations (firmware for PCI cards, windows). A QEMU also loads those
# modules of the system's QEMU that it has none of itself, and complains about their version: so it gets its own.
native=$(uname -m)-linux-gnu
packages="qemu-system-arm qemu-system-common qemu-system-data"
[ ! -e "/usr/lib/$native/qemu/ui-opengl.so" ] || packages="$packages qemu-system-modules-opengl"
[ ! -e "/usr/lib/$native/qemu/ui-spice-core.so" ] || packages="$packages qemu-system-modules-spice"
install="apt-get -q install -t $codename-backports --download-only --reinstall $packages"
size=$(APT_CONFIG=$apt_folder/apt.conf $install --print-uris | awk '/^.http|^.[a-z+]*:/ { s += $3 } END { print s + 0 }')
version=${version%%[+~]*}
say fetch "QEMU ${version#*:} from $codename-backports ($(megabytes "$size"))"
# shellcheck disable=SC2086  # a command line
apt_quiet $install
unpack_archives "$out/root"

cat >"$out/qemu.part" <<EOF
#!/bin/sh
# Written by guest/host/qemu-backports.sh.
root=\${0%/*}/root
export LD_LIBRARY_PATH="\$root/usr/lib/$native:\$root/lib/$native\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export QEMU_MODULE_DIR="\$root/usr/lib/$native/qemu"
exec "\$root/usr/bin/qemu-system-aarch64" -L "\$root/usr/share/qemu" "\$@"
EOF
chmod +x "$out/qemu.part"
has_board "$out/qemu.part" || refuse "the QEMU of $codename-backports does not run here: $("$out/qemu.part" --version 2>&1 | tail -n 1)"
rm -rf "$out/apt"
mv "$out/qemu.part" "$out/qemu"
say ready "target/qemu-backports/qemu: make run BOARD=raspi4b finds it; QEMU=target/qemu-backports/qemu for other machines"
