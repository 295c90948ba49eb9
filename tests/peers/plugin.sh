#!/bin/sh
# A plug-in back-end in POSIX shell, without any other program on its reading path: the secrets of one directory.
#
#     plugin.sh DIRECTORY
#
# DIRECTORY/secrets has one line for each secret: name, scope, id, version, keys and values, with a tab between two, the
# first, fifth and sixth as JSON. Keyside writes the fields of a request in a fixed order and without blanks, so that the
# JSON texts can be cut out and compared as they are, without being understood.
#
# For tests, DIRECTORY may also hold `denied` (names as JSON, one a line), `down`, `stalled` and `spoilt`.
set -u
directory=$1
tab=$(printf '\t')

result() { printf '{"id":%s,"result":%s}\n' "$id" "$1"; }
error() { printf '{"id":%s,"error":{"class":"%s","message":"%s"}}\n' "$id" "$1" "$2"; }

# Prints what is known of the secret whose line has been read, without the closing brace.
description() {
    printf '{"name":%s,"scope":"%s","id":"%s","version":"%s"' "$one" "$scope" "$key_id" "$version"
    # A secret that was made by this plug-in: it cannot tell its keys without a parser.
    [ "$keys" = null ] || printf ',"keys":%s' "$keys"
}

list() {
    separator=''
    printf '{"id":%s,"result":{"secrets":[' "$id"
    while IFS=$tab read -r one scope key_id version keys values; do
        printf '%s' "$separator"
        description
        printf '}'
        separator=','
    done <"$directory/secrets"
    printf ']}}\n'
}

# Reads the line of the secret that is asked for into variables.
find_secret() {
    for wanted in $(printf '%s' "$scopes" | tr -d '"' | tr ',' ' '); do
        while IFS=$tab read -r one scope key_id version keys values; do
            [ "$one" = "$name" ] && [ "$scope" = "$wanted" ] && return 0
        done <"$directory/secrets"
    done
    return 1
}

is_denied() {
    [ -f "$directory/denied" ] || return 1
    while IFS= read -r one_denied; do
        [ "$one_denied" = "$name" ] && return 0
    done <"$directory/denied"
    return 1
}

# Writes all lines but that of the secret that is asked for to a new file.
all_others() {
    wanted=$scopes
    : >"$directory/secrets.new"
    while IFS=$tab read -r one scope key_id version keys values; do
        [ "$one" = "$name" ] && [ "$scope" = "$wanted" ] && continue
        printf "%s\t%s\t%s\t%s\t%s\t%s\n" "$one" "$scope" "$key_id" "$version" "$keys" "$values"
    done <"$directory/secrets" >>"$directory/secrets.new"
}

umask 077
echo 'serving one directory' >&2
while IFS= read -r line; do
    id=${line#'{"id":'}
    id=${id%%,*}
    method=${line#*'"method":"'}
    method=${method%%'"'*}
    # A quote inside a name has a backslash before it, so this is where the name ends.
    name=${line#*'"name":'}
    name=${name%%',"scope'*}
    scopes=${line#*'"scopes":['}
    scopes=${scopes%%]*}
    while [ "$method" != initialize ] && [ -f "$directory/stalled" ]; do sleep 0.02; done
    if [ "$method" != initialize ] && [ -f "$directory/down" ]; then
        error transient 'the store does not answer'
        continue
    fi
    case $method in
    initialize) result '{"protocol":1,"name":"directory","methods":["create","delete"]}' ;;
    list) list ;;
    describe)
        if find_secret; then result "$(description)}"; else error not_found 'no such secret'; fi
        ;;
    fetch)
        if ! find_secret; then
            error not_found 'no such secret'
        elif is_denied; then
            error denied 'this account may not read it'
        elif [ -f "$directory/spoilt" ]; then
            error transient 'values cannot be read'
        else
            printf '{"id":%s,"result":' "$id"
            description
            printf ',"values":%s}}\n' "$values"
        fi
        ;;
    create | delete)
        scopes=${line#*'"scope":"'}
        scopes=${scopes%%'"'*}
        if [ "$method" = create ]; then
            if find_secret; then
                printf '{"id":%s,"error":{"class":"invalid","reason":"exists","message":"the name is taken"}}\n' "$id"
                continue
            fi
            new=${line#*'"values":'}
            all_others
            printf "%s\t%s\t%s\t1\tnull\t%s\n" "$name" "$scopes" "id-$$-$id" "${new%'}}'}" >>"$directory/secrets.new"
        else
            if ! find_secret; then
                error not_found 'no such secret'
                continue
            fi
            all_others
        fi
        mv "$directory/secrets.new" "$directory/secrets"
        result null
        ;;
    *) error invalid 'there is no such method' ;;
    esac
done
