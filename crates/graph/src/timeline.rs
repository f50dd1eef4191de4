//! `KILN_TRACE`: what host and device did when, as Chrome's trace viewer and Perfetto read it.
//!
//! Every event is a line that is written at once, so that a process that ends or fails leaves what it did until then; both
//! viewers take an array without its end. Source: "Trace Event Format", the JSON array format.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use kiln_ir::{Caps, KernelTime};

/// The process's events.
pub(crate) struct Timeline {
    file: Mutex<File>,
    begun: Instant,
    /// Microseconds from the device's clock to the host's, once kernels have been seen.
    shift: OnceLock<f64>,
}

/// Lanes of the viewer: threads of the host, and the device.
const HOST: u32 = 0;
const DEVICE: u32 = 1;

impl Timeline {
    /// The process's timeline, in this file.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(crate) fn of_process(path: &Path) -> std::io::Result<&'static Timeline> {
        static TIMELINE: OnceLock<Timeline> = OnceLock::new();
        if let Some(known) = TIMELINE.get() {
            return Ok(known);
        }
        let mut file = File::create(path)?;
        file.write_all(b"[\n")?;
        let made = Timeline { file: Mutex::new(file), begun: Instant::now(), shift: OnceLock::new() };
        made.put(&named(HOST, "host"));
        Ok(TIMELINE.get_or_init(|| made))
    }

    /// Something that this thread does until the span drops.
    pub(crate) fn span(&'static self, name: &'static str) -> Span {
        Span { timeline: self, name, begun: Instant::now() }
    }

    /// Kernels that a device has just ended. The first that are seen end now, by the host's clock.
    pub(crate) fn kernels(&self, caps: &Caps, times: &[KernelTime]) {
        let Some(last) = times.last() else { return };
        let mut text = String::new();
        let shift = *self.shift.get_or_init(|| {
            text += &named(DEVICE, &caps.name);
            self.microseconds(Instant::now()) - (last.begin_ns + last.gpu_ns) / 1e3
        });
        for time in times {
            text += &event(&time.name, (DEVICE, 0), time.begin_ns / 1e3 + shift, time.gpu_ns / 1e3);
        }
        self.put(&text);
    }

    fn microseconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.begun).as_secs_f64() * 1e6
    }

    fn put(&self, lines: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(lines.as_bytes()) {
            eprintln!("KILN_TRACE: {error}");
        }
    }
}

/// Something that a thread of the host does.
pub(crate) struct Span {
    timeline: &'static Timeline,
    name: &'static str,
    begun: Instant,
}

impl Drop for Span {
    fn drop(&mut self) {
        static THREADS: AtomicU32 = AtomicU32::new(0);
        thread_local! {
            static THREAD: u32 = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let (at, took) = (self.timeline.microseconds(self.begun), self.begun.elapsed().as_secs_f64() * 1e6);
        self.timeline.put(&event(self.name, (HOST, THREAD.with(|n| *n)), at, took));
    }
}

/// A complete event, as a line of the array.
pub(crate) fn event(name: &str, (pid, tid): (u32, u32), at: f64, took: f64) -> String {
    let name = escaped(name);
    format!("{{\"name\":\"{name}\",\"ph\":\"X\",\"ts\":{at:.2},\"dur\":{took:.2},\"pid\":{pid},\"tid\":{tid}}},\n")
}

/// What a lane is called.
fn named(pid: u32, name: &str) -> String {
    let name = escaped(name);
    format!("{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{pid},\"args\":{{\"name\":\"{name}\"}}}},\n")
}

/// Text within quotes of JSON.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json() {
        let line = event("loop \"x\" \\ \n", (1, 2), 0.5, 10.0);
        let expected = r#"{"name":"loop \"x\" \\ \u000a","ph":"X","ts":0.50,"dur":10.00,"pid":1,"tid":2},"#;
        assert_eq!(line.trim_end(), expected);
        assert_eq!(named(0, "a").trim_end(), r#"{"name":"process_name","ph":"M","pid":0,"args":{"name":"a"}},"#);
    }
}
