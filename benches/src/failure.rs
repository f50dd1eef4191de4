//! A row that panics becomes a row that failed: the panic's words are kept for its line, and the others go on.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kiln::Result;

/// What the last panic said, on whatever thread.
static SAID: Mutex<Option<String>> = Mutex::new(None);

/// From now on, panics say what they have to say to [`caught`] and not to standard error.
pub fn listen() {
    panic::set_hook(Box::new(|info| {
        let said = format!("panic: {}{}", words(info.payload()), place(info));
        // The first of several threads' panics is the cause of the others.
        SAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(said);
    }));
}

/// The result of `f`, or why there is none.
///
/// # Errors
/// If it fails or panics.
pub fn caught<T>(f: impl FnOnce() -> Result<T>) -> Result<T, String> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).take();
    match panic::catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => {
            let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err(said.unwrap_or_else(|| format!("panic: {}", words(&*payload))))
        }
    }
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind")
}

/// Where it was; results name no folder of this machine, so only for files below the repository.
fn place(info: &PanicHookInfo<'_>) -> String {
    match info.location().filter(|at| Path::new(at.file()).is_relative()) {
        Some(at) => format!(" ({}:{})", at.file(), at.line()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(caught(|| Ok(3)), Ok(3));
        let error = caught(|| -> Result<()> { panic!("dims differ: {}", 3) }).unwrap_err();
        assert!(error.contains("dims differ: 3"), "{error}");
    }
}
