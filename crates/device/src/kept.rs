//! Pipelines kept on disk: what a driver made of kernels in one process is there for the next.
//!
//! Only Vulkan's drivers give it away. The hard idea is that nothing may reach a driver but what it gave: a file is
//! written whole under another name, then renamed, and holds a sum over its content; the driver is asked on a thread
//! that nobody waits for. Two processes that save at once lose the pipelines of one, no more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_ir::Result;

use crate::gpu::{Gpu, lock};

/// The first bytes of a file, of this form.
const MAGIC: [u8; 8] = *b"kilnpip1";

/// More than this is mostly of programs that are not run any more, and is not kept.
const MAX_BYTES: usize = 64 << 20;

/// Between two saves of a process: all of the file is written each time.
const REST: Duration = Duration::from_secs(1);

/// A device's pipelines, of this process and of earlier ones.
pub(crate) struct Kept {
    saver: Arc<Saver>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Saver {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Default)]
struct State {
    /// There are pipelines that no save has begun to see.
    news: bool,
    /// A thread saves, or rests.
    saving: bool,
    closing: bool,
    /// The sum over what the file holds.
    saved: Option<u64>,
}

impl Kept {
    /// The pipelines kept in this directory, which need not be there; `None` if the driver keeps none.
    pub(crate) fn open(gpu: &Gpu, directory: &Path) -> Option<Kept> {
        if !gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = directory.join(wgpu::util::pipeline_cache_key(&gpu.device.adapter_info())?);
        let data = load(&path);
        let saved = data.as_deref().map(sum);
        match create(gpu, data.as_deref()) {
            Ok(cache) => {
                let state = Mutex::new(State { saved, ..State::default() });
                let saver = Arc::new(Saver { cache, path, state, closing: Condvar::new() });
                Some(Kept { saver, thread: Mutex::default() })
            }
            Err(error) => {
                log::warn!("pipelines are not kept: {error}");
                None
            }
        }
    }

    /// What a new pipeline is looked up in and added to.
    pub(crate) fn cache(&self) -> &wgpu::PipelineCache {
        &self.saver.cache
    }

    /// Saves on another thread, soon.
    pub(crate) fn save(&self) {
        let mut state = lock(&self.saver.state);
        state.news = true;
        if !std::mem::replace(&mut state.saving, true) {
            let saver = self.saver.clone();
            match std::thread::Builder::new().name("kiln pipelines".into()).spawn(move || saver.run()) {
                Ok(thread) => *lock(&self.thread) = Some(thread),
                Err(error) => {
                    // The next batch tries again.
                    state.saving = false;
                    log::warn!("pipelines are not kept: {error}");
                }
            }
        }
    }
}

impl Drop for Kept {
    /// Waits until all is saved.
    fn drop(&mut self) {
        lock(&self.saver.state).closing = true;
        self.saver.closing.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A thread that panicked has told so.
            let _ = thread.join();
        }
    }
}

impl Saver {
    /// Saves until nothing is new.
    fn run(&self) {
        let mut state = lock(&self.state);
        while std::mem::take(&mut state.news) {
            let saved = state.saved;
            drop(state);
            let now = self.write(saved);
            state = lock(&self.state);
            state.saved = now;
            let rest = self.closing.wait_timeout_while(state, REST, |state| !state.closing);
            state = rest.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.saving = false;
    }

    /// Writes what the driver has, unless the file has just that; gives the sum of what it has then.
    fn write(&self, saved: Option<u64>) -> Option<u64> {
        // A lost device has none.
        let Some(data) = self.cache.get_data() else { return saved };
        let now = sum(&data);
        if saved == Some(now) || data.len() > MAX_BYTES {
            return saved;
        }
        match store(&self.path, &data) {
            Ok(()) => Some(now),
            Err(error) => {
                log::warn!("pipelines are not kept: {}: {error}", self.path.display());
                saved
            }
        }
    }
}

fn create(gpu: &Gpu, data: Option<&[u8]>) -> Result<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("kiln"), data, fallback: true };
    // SAFETY: the data was given by `get_data`: it comes from a file that begins as only `store` begins one, in a
    // directory that is the user's own, and its sum is right. wgpu compares the device and the driver's version, and
    // begins anew if they differ.
    gpu.scoped(|| unsafe { gpu.device.create_pipeline_cache(&descriptor) })
}

/// What a file holds, if it is whole.
fn load(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let (head, data) = bytes.split_first_chunk::<16>()?;
    let is_whole = head[..8] == MAGIC && head[8..] == sum(data).to_le_bytes() && data.len() <= MAX_BYTES;
    is_whole.then(|| bytes.split_off(16))
}

/// Replaces a file, which others may read or replace at the same time.
fn store(path: &Path, data: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    let bytes = [&MAGIC[..], &sum(data).to_le_bytes(), data].concat();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Two devices of a process may save as well.
    let unfinished = directory.join(format!("{name}.{}.{:p}", std::process::id(), data));
    let renamed = std::fs::write(&unfinished, bytes).and_then(|()| std::fs::rename(&unfinished, path));
    renamed.inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
}

/// FNV-1a over 64 bits.
fn sum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes when it is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("kiln-kept-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Scratch(path)
        }

        fn files(&self) -> usize {
            std::fs::read_dir(&self.0).map_or(0, Iterator::count)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_whole_files_are_loaded() {
        let scratch = Scratch::new("whole");
        let path = scratch.0.join("deep").join("file");
        assert_eq!(load(&path), None);
        let data: Vec<u8> = (0..1000).map(|i| (i * 7 % 251) as u8).collect();
        store(&path, &data).unwrap();
        assert_eq!(load(&path), Some(data.clone()));
        let whole = std::fs::read(&path).unwrap();
        let spoilt = |at: usize| whole.iter().enumerate().map(|(i, b)| b ^ u8::from(i == at)).collect::<Vec<u8>>();
        let longer = [&whole[..], &[0]].concat();
        for bytes in [&whole[..15], &whole[..500], &longer, &spoilt(3), &spoilt(9), &spoilt(700), &[]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(load(&path), None);
        }
        store(&path, &data).unwrap();
        assert_eq!(load(&path), Some(data));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "only the file is left");
    }

    #[test]
    fn files_written_at_once_are_whole() {
        let scratch = Scratch::new("at-once");
        let path = scratch.0.join("file");
        let of = |n: u8| vec![n; 100_000 + n as usize];
        store(&path, &of(0)).unwrap();
        std::thread::scope(|scope| {
            let path = &path;
            let writers: Vec<_> =
                (1..4).map(|n| scope.spawn(move || (0..30).for_each(|_| store(path, &of(n)).unwrap()))).collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                let found = load(path).expect("a reader sees a whole file");
                assert_eq!(found, of(found[0]));
            }
        });
        assert_eq!(scratch.files(), 1);
    }

    /// Opens the first adapter with this directory.
    fn open(directory: &Path) -> Option<crate::WgpuBackend> {
        if crate::adapters().is_empty() {
            assert!(std::env::var_os("KILN_REQUIRE_GPU").is_none(), "KILN_REQUIRE_GPU is set and there is no adapter");
            println!("skipped: no adapter");
            return None;
        }
        let options = crate::Options { kept: Some(directory.to_path_buf()), ..Default::default() };
        let backend = crate::WgpuBackend::gpu(0, options).unwrap();
        if !backend.keeps_pipelines() {
            println!("skipped: the driver keeps no pipelines");
            return None;
        }
        Some(backend)
    }

    fn compile(backend: &crate::WgpuBackend) {
        let kernels = crate::probe::Probe::ALL.map(|probe| probe.kernel());
        let compiled = kiln_ir::Backend::compile(backend, &kernels);
        assert!(compiled.iter().all(|exe| exe.is_ok()));
    }

    #[test]
    fn pipelines_are_kept_and_what_is_no_file_of_ours_is_replaced() {
        let scratch = Scratch::new("device");
        let Some(backend) = open(&scratch.0) else { return };
        assert_eq!(scratch.files(), 0, "nothing was made yet");
        compile(&backend);
        drop(backend);
        assert_eq!(scratch.files(), 1);
        let path = std::fs::read_dir(&scratch.0).unwrap().next().unwrap().unwrap().path();
        let data = load(&path).expect("the file is whole");
        let backend = open(&scratch.0).unwrap();
        compile(&backend);
        drop(backend);
        let again = load(&path).unwrap();
        assert_eq!(again.len(), data.len(), "a warm start adds nothing");
        // Of another version, of another driver (its own sum is right), of nobody.
        let mut foreign = data.clone();
        foreign[..64].fill(0x5a);
        for bad in [data[..data.len() / 2].to_vec(), foreign] {
            store(&path, &bad).unwrap();
            let backend = open(&scratch.0).unwrap();
            compile(&backend);
            drop(backend);
            assert_ne!(load(&path), Some(bad));
        }
        std::fs::write(&path, b"nonsense").unwrap();
        let backend = open(&scratch.0).unwrap();
        compile(&backend);
        drop(backend);
        assert!(load(&path).is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_is_no_error() {
        let scratch = Scratch::new("impossible");
        std::fs::write(&scratch.0, b"a file").unwrap();
        if let Some(backend) = open(&scratch.0.join("within")) {
            compile(&backend);
        }
        std::fs::remove_file(&scratch.0).unwrap();
    }
}
