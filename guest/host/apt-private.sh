# Debian packages without root and without touching the system's own package state. Sourced, after common.sh.
#
# apt runs on a private state folder: its own lists, cache and configuration, the package sources taken from the
# system's at run time. Third-party repositories are left out. No foreign architecture is added to the system.

# apt_private FOLDER ARCHITECTURE STATUS [SUITE]: prepares FOLDER; STATUS is the dpkg status file apt shall believe in
# (empty: nothing is installed), SUITE one more suite to read, from where the release itself comes from.
apt_private() {
    apt_folder=$PWD/$1
    command -v apt-get >/dev/null || refuse "apt-get: not found; arm64 packages are fetched from Debian's archive"
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    mkdir -p "$apt_folder/lists/partial" "$apt_folder/cache/archives/partial"
    apt_sources "${4:-}" >"$apt_folder/sources.list"
    [ -s "$apt_folder/sources.list" ] || refuse "apt: this system has no Debian package source for ${codename:-its release}"
    {
        # Proxies and the like are the system's; hooks and folders are not.
        apt-config dump | grep '^Acquire::[^"]* "[^"]*";$' | grep -v '^Acquire::IndexTargets' || true
        cat <<EOF
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "$apt_folder/sources.list";
Dir::State "$apt_folder";
Dir::State::status "$3";
Dir::Cache "$apt_folder/cache";
APT::Architecture "$2";
APT::Architectures { "$2"; };
APT::Sandbox::User "$(id -un)";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
Acquire::Languages "none";
Debug::NoLocking "true";
EOF
    } >"$apt_folder/apt.conf"
    apt_quiet apt-get -q update
}

# One line per source of this Debian release and its updates, in sources.list form.
apt_sources() { # [SUITE]
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY) origin=$(ORIGIN)' 'Created-By: Packages' |
        awk -v codename="$codename" -v more="$1" '
            # Before the first `apt-get update` the origin is not known; the suite is.
            $NF !~ /^origin=(Debian)?$/ || $3 != "main" { next }
            $2 !~ ("^" codename "([-/](updates|security|backports))?$") && $2 !~ /^(old)*stable([-\/](updates|security))?$/ { next }
            { key = NF > 4 && $4 ~ /^\// ? "[signed-by=" $4 "] " : "" }
            !seen[$1 $2]++ { print "deb " key $1 " " $2 " main" }
            more != "" && $2 == codename && !seen[$1 more]++ { print "deb " key $1 " " more " main" }'
}

# Runs apt on the private state, silent unless it fails; $apt_hint may say what a failure means.
apt_hint=
apt_quiet() {
    APT_CONFIG=$apt_folder/apt.conf "$@" >"$apt_folder/log" 2>&1 || {
        grep -E '^(E|W|Err)' "$apt_folder/log" >&2 || tail -n 3 "$apt_folder/log" >&2
        refuse "${apt_hint:-apt could not fetch from the archive of Debian (see above)}"
    }
}

apt_show() { # PACKAGE FIELD
    APT_CONFIG=$apt_folder/apt.conf apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n "s/^$2: //p" | head -n 1
}

# unpack_package PACKAGE FOLDER WHAT: fetches it once and unpacks it; WHAT is what it is, for the reader.
unpack_package() {
    size=$(apt_show "$1" Size)
    [ -n "$size" ] || refuse "apt: Debian has no package $1 for this release"
    say fetch "$3 ($(megabytes "$size"))"
    (cd "$apt_folder/cache/archives" && apt_quiet apt-get -q download "$1")
    unpack_archives "$2"
}

# Unpacks what has been fetched into FOLDER, and keeps no archive.
unpack_archives() {
    mkdir -p "$1"
    for archive in "$apt_folder"/cache/archives/*.deb; do
        dpkg-deb -x "$archive" "$1"
        rm "$archive"
    done
}
