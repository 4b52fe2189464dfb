#!/bin/sh
# Brings what guests made by others are made of into target/linux, once: Image, Image-newer, busybox, raspi4b.dtb, u-boot.bin.
#
#   fetch.sh Image busybox      each asked-for file that is not there yet
#
# Image and raspi4b.dtb come from Debian's arm64 kernel package, Image-newer from the newest that this release has of a later
# one, busybox from busybox-static, u-boot.bin (U-Boot for QEMU's
# arm64 virt) from u-boot-qemu.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/apt-private.sh
out=target/linux tree=target/linux/packages

missing=
for file; do [ -s "$out/$file" ] || missing="$missing $file"; done
[ -n "$missing" ] || exit 0

say read "Debian's package lists for arm64"
: >"$(mkdir -p "$out" && echo "$out/no-packages")"
apt_private target/linux/apt arm64 "$PWD/$out/no-packages"

fetch_kernel() {
    package=$(apt_show linux-image-arm64 Depends | sed 's/[ ,(].*//')
    unpack_package "${package:-linux-image-arm64}" "$tree" "Debian's arm64 kernel, $package"
    cp "$tree"/boot/vmlinuz-* "$out/Image.part"
    cp "$tree"/usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb "$out/raspi4b.dtb"
    mv "$out/Image.part" "$out/Image"
}

fetch_newer_kernel() {
    package=$(APT_CONFIG=$apt_folder/apt.conf apt-cache search --names-only '^linux-image-[0-9.]*[+]deb[0-9]*-arm64-unsigned$' |
        sed 's/ .*//' | sort -V | tail -n 1)
    [ -n "$package" ] || refuse "apt: Debian has no newer kernel for this release"
    unpack_package "$package" "$tree-newer" "a newer kernel of Debian's, $package"
    cp "$tree-newer"/boot/vmlinuz-* "$out/Image.part"
    mv "$out/Image.part" "$out/Image-newer"
    rm -rf "$tree-newer"
}

for file in $missing; do
    [ ! -s "$out/$file" ] || continue
    case $file in
        Image | raspi4b.dtb) fetch_kernel ;;
        Image-newer) fetch_newer_kernel ;;
        busybox)
            unpack_package busybox-static "$tree" "BusyBox for arm64"
            cp "$tree"/bin/busybox "$out/busybox" 2>/dev/null || cp "$tree"/usr/bin/busybox "$out/busybox"
            ;;
        u-boot.bin)
            unpack_package u-boot-qemu "$tree" "U-Boot for QEMU"
            cp "$tree/usr/lib/u-boot/qemu_arm64/u-boot.bin" "$out/u-boot.bin"
            ;;
        *) refuse "fetch.sh: $file: not one of Image, Image-newer, busybox, raspi4b.dtb, u-boot.bin" ;;
    esac
done
rm -rf "$tree" "$out/apt" "$out/no-packages"
