#!/bin/sh
# Writes the VM bundle: one .dtb that describes the VM and carries its bytes (docs/vm-bundle.md has the schema).
#
#   bundle.sh FOLDER     writes FOLDER/vms.dtb (and FOLDER/vms.dts, where we made it ourselves)
#
# Reads the variables that `options.sh` has checked. A description of the person's own (VMS=) is compiled as it is.
set -eu
. guest/host/common.sh
. guest/host/options.sh
folder=$1
check_guest

# DTC's warnings are about buses and addresses; a VM bundle has none. Its errors name file and line.
compile() { # SOURCE
    dtc -q -I dts -O dtb -i "$(dirname "$1")" -o "$folder/vms.dtb" "$1"
}

# A device tree string literal: \ and " escaped.
quoted() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

# The files get fixed names beside the .dts, so that no path has to survive dtc's quoting. Before each module goes a pad,
# at first no more than a mark to find it by.
beside() { # NAME FILE
    ln -s "$(realpath "$2")" "$folder/$1"
    mark "$1" >"$folder/$1.pad"
}

# A whole number of cells, and in no kernel.
mark() { # NAME
    printf '@@faultline-pad:%-10s@@' "$1"
}

# A module is mapped where it lies if that is in step with the guest's pages: those that fill a block of 2 MiB with blocks,
# others with pages. The mark was found at so many bytes; after the pad come the token, length and name of the next property.
HEAD_OF_PROPERTY=12
padding() { # NAME MOVED: by how much the pad has to grow, when what is before it grew by MOVED
    case $(($(stat -Lc %s "$folder/$1") / 2097152)) in
        0) step=4096 ;;
        *) step=2097152 ;;
    esac
    found=$(grep -obUaF "$(mark "$1")" "$folder/vms.dtb" | head -n 1)
    start=$((${found%%:*} + $(stat -c %s "$folder/$1.pad") + HEAD_OF_PROPERTY + $2))
    echo $(((step - start % step) % step))
}

if [ "$guest_kind" = bundle ]; then
    case $guest_file in
        *.dtb) cp "$guest_file" "$folder/vms.dtb" ;;
        *) compile "$guest_file" || refuse "VMS=$VMS: dtc does not understand it (see above)" ;;
    esac
    exit 0
fi

case $guest_kind in
    built) domain=$GUEST ;;
    *) domain=${DOMAIN:-guest} ;;
esac
beside kernel "$guest_file"
{
    cat <<EOF
/dts-v1/;
/ {
    #address-cells = <2>;
    #size-cells = <2>;
    chosen {
        #address-cells = <2>;
        #size-cells = <2>;
        $domain {
            compatible = "xen,domain";
            #address-cells = <2>;
            #size-cells = <2>;
            memory = <0x0 $(printf '0x%x' $((guest_mib * 1024)))>;
            cpus = <$VCPUS>;
            vpl011;
            faultline,rights = "$RIGHTS";
            faultline,granule = "$GRANULE";
            faultline,resize = "$RESIZE";
            faultline,reboot = "$REBOOT";
            ${PROPERTIES:-}
            module@0 {
                compatible = "multiboot,kernel", "multiboot,module";
EOF
    [ -z "$APPEND" ] || printf '                bootargs = %s;\n' "$(quoted "$APPEND")"
    cat <<EOF
                faultline,pad = /incbin/("kernel.pad");
                faultline,data = /incbin/("kernel");
            };
EOF
    if [ -n "$initrd_file" ]; then
        beside ramdisk "$initrd_file"
        cat <<EOF
            module@1 {
                compatible = "multiboot,ramdisk", "multiboot,module";
                faultline,pad = /incbin/("ramdisk.pad");
                faultline,data = /incbin/("ramdisk");
            };
EOF
    fi
    number=0
    for list in $PIN; do
        echo "            vcpu@$number { compatible = \"xen,vcpu\"; id = <$number>; hard-affinity = \"$list\"; };"
        number=$((number + 1))
    done
    printf '        };\n    };\n};\n'
} >"$folder/vms.dts"
compile "$folder/vms.dts"
kernel_pad=$(padding kernel 0)
if [ -n "$initrd_file" ]; then
    head -c "$(padding ramdisk "$kernel_pad")" /dev/zero >>"$folder/ramdisk.pad"
fi
head -c "$kernel_pad" /dev/zero >>"$folder/kernel.pad"
compile "$folder/vms.dts"
