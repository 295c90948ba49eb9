//! Which variable names a whole secret may not set.
//!
//! Whoever may write a secret chooses its keys. A key that is a variable by which a loader, a shell or an interpreter
//! is steered would be a way to run code in the step, so such names are refused; `--env` may still set them, because
//! there the step's author chose the name.

/// Names that start like this are refused.
const PREFIXES: &[&str] = &[
    // Loaders: glibc and musl, macOS, IRIX heritage, allocators' hooks, glibc's tunables.
    "LD_",
    "DYLD_",
    "_RLD",
    "MALLOC_",
    "GLIBC_TUNABLES",
    // Exported shell functions.
    "BASH_FUNC_",
    // Interpreters.
    "PYTHON",
    "PERL5",
    "RUBY",
    "NODE_OPTIONS",
    "NODE_PATH",
    "LUA_",
    // Git runs programs that these name.
    "GIT_",
];

/// Exactly these names are refused.
const NAMES: &[&str] = &[
    // Shells.
    "BASH_ENV",
    "ENV",
    "IFS",
    "PATH",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "CDPATH",
    "GLOBIGNORE",
    "SHELL",
    "ZDOTDIR",
    "FPATH",
    "NULLCMD",
    "READNULLCMD",
    // Interpreters and runtimes.
    "PERLLIB",
    "PERLIO_DEBUG",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "CLASSPATH",
    "DOTNET_STARTUP_HOOKS",
    "R_HOME",
    "R_PROFILE",
    "R_PROFILE_USER",
    "R_ENVIRON",
    "R_ENVIRON_USER",
    // The C library's own unsafe list (glibc, sysdeps/generic/unsecvars.h).
    "GCONV_PATH",
    "GETCONF_DIR",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "RES_OPTIONS",
    "RESOLV_HOST_CONF",
    "TMPDIR",
    "TZDIR",
    // OpenSSL loads code named there, or writes its keys there.
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "SSLKEYLOGFILE",
    // Where every program looks for its own configuration.
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    // Our own: they would steer a keyside inside the step, or hide the files we made.
    "KEYSIDE_CONFIG",
    "KEYSIDE_SOCKET",
    "KEYSIDE_AGENT_UID",
    "KEYSIDE_FILES",
];

/// Tells whether a bulk name is refused. Proxy variables are read in either case by half of the world, hence here too.
pub(crate) fn is_denied(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_denied_by_its_end(name)
}

/// Tells whether a name is refused for its end, so that no prefix makes it harmless.
pub(crate) fn is_denied_by_its_end(name: &str) -> bool {
    name.len() >= 6 && name.as_bytes()[name.len() - 6..].eq_ignore_ascii_case(b"_proxy")
}

/// Tells whether `name` is a variable name: `[A-Za-z_][A-Za-z0-9_.-]*`.
pub(crate) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_steer_a_program_are_denied() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "ENV",
            "IFS",
            "PATH",
            "SHELLOPTS",
            "PS4",
            "PROMPT_COMMAND",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "NODE_OPTIONS",
            "PERL5LIB",
            "PERL5OPT",
            "PERLLIB",
            "RUBYOPT",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "JDK_JAVA_OPTIONS",
            "GIT_SSH_COMMAND",
            "GCONV_PATH",
            "http_proxy",
            "HTTPS_PROXY",
            "All_Proxy",
            "_proxy",
        ] {
            assert!(is_denied(name), "{name}");
        }
    }

    #[test]
    fn ordinary_names_are_not() {
        for name in
            ["PASSWORD", "path", "ld_preload", "MY_PATH", "ENVIRONMENT", "HOMEPAGE", "PROXY", "proxy_url", "AWS_REGION"]
        {
            assert!(!is_denied(name), "{name}");
        }
    }

    #[test]
    fn a_variable_name_starts_with_a_letter_or_an_underscore() {
        for name in ["a", "_", "lower-key.dot", "A1"] {
            assert!(is_variable_name(name), "{name}");
        }
        for name in ["", "1A", "a b", "a=b", "ü", "-a", ".a", "a\n", "BASH_FUNC_ls%%"] {
            assert!(!is_variable_name(name), "{name}");
        }
    }
}
