//! Where compiled kernels are kept from one process to the next: `KILN_CACHE`, or the user's directory of caches.

use std::ffi::OsString;
use std::path::PathBuf;

/// The directory by these variables; `None` if nothing is to be kept, or the user has no such directory.
pub(crate) fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match path("KILN_CACHE") {
        Some(asked) => (asked.as_os_str() != "off").then_some(asked),
        None => {
            let user = match () {
                () if cfg!(windows) => path("LOCALAPPDATA"),
                () if cfg!(target_vendor = "apple") => path("HOME").map(|home| home.join("Library/Caches")),
                // A relative path is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
                () => path("XDG_CACHE_HOME")
                    .filter(|path| path.is_absolute())
                    .or_else(|| path("HOME").map(|home| home.join(".cache"))),
            };
            user.map(|user| user.join("kiln"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_a_directory_or_none() {
        let by = |set: &[(&str, &str)]| {
            directory(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value)))
        };
        let home = ("HOME", "/users/somebody");
        assert_eq!(by(&[("KILN_CACHE", "/tmp/x"), home]), Some("/tmp/x".into()));
        assert_eq!(by(&[("KILN_CACHE", "off"), home]), None);
        assert_eq!(by(&[]), None);
        if cfg!(target_os = "linux") {
            assert_eq!(by(&[home]), Some("/users/somebody/.cache/kiln".into()));
            assert_eq!(by(&[("KILN_CACHE", ""), home]), by(&[home]));
            assert_eq!(by(&[("XDG_CACHE_HOME", "/caches"), home]), Some("/caches/kiln".into()));
            assert_eq!(by(&[("XDG_CACHE_HOME", "caches"), home]), by(&[home]));
        }
    }
}
