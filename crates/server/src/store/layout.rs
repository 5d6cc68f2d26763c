//! Where things lie on the disk, and the steps that put them there.
//!
//! ```text
//! <dir>/lock                    held while a process uses the directory
//! <dir>/index.db                what is stored and who has shown it (SQLite)
//! <dir>/tmp/…                   fills under way; emptied at start
//! <dir>/blobs/sha256/ab/<hex>   whole, verified objects, never changed
//! ```
//!
//! An object is written under `tmp/`, hashed on the way, synced, and renamed. So a crash at any instant leaves a whole
//! object or none; where it leaves the index behind, the sweep brings it up.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use entrepot_oci::{Algorithm, Digest, Hasher};
use tempfile::NamedTempFile;

/// Bytes that are reserved at once.
pub(crate) const RESERVED: u64 = 8 << 20;

/// The folder and its parts.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// What the file system says of an object's file. Any write, truncation or replacement changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// Nanoseconds since the epoch.
    pub(crate) mtime: i64,
    pub(crate) ctime: i64,
    pub(crate) inode: i64,
}

impl Layout {
    /// Makes the folders that are missing, and makes sure that they stay.
    pub(crate) fn create(root: &Path) -> io::Result<Layout> {
        let layout = Layout { root: root.to_owned() };
        fs::create_dir_all(root.join("tmp"))?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            fs::create_dir_all(layout.blobs().join(algorithm.as_str()))?;
        }
        sync_folder(&layout.blobs())?;
        sync_folder(root)?;
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn object(&self, digest: &Digest) -> PathBuf {
        self.folder(digest).join(digest.hex())
    }

    fn folder(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().as_str()).join(&digest.hex()[..2])
    }

    /// Refuses to share the folder with another process: two indexes of one store would drift apart.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.lock_file())?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// Whether the folder is still the one that `lock` was taken in.
    pub(crate) fn holds(&self, lock: &File) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (lock.metadata(), fs::metadata(self.lock_file())) {
            (Ok(held), Ok(there)) => identity(held) == identity(there),
            _ => false,
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Removes what an interrupted run left under `tmp/`.
    pub(crate) fn sweep_tmp(&self) -> io::Result<u64> {
        let mut swept = 0;
        for entry in fs::read_dir(self.root.join("tmp"))? {
            swept += u64::from(fs::remove_file(entry?.path()).is_ok());
        }
        Ok(swept)
    }

    /// A file for `size` bytes (if known), for which there is space, so that a full disk shows before the first byte. The
    /// first of them are reserved; [`reserve`] does the rest.
    pub(crate) fn temporary(&self, size: Option<u64>) -> io::Result<NamedTempFile> {
        failpoint("store::create")?;
        let file = NamedTempFile::with_prefix_in("fill-", self.root.join("tmp"))?;
        if let Some(size) = size.filter(|&size| size > 0) {
            failpoint("store::reserve")?;
            let disk = rustix::fs::fstatvfs(&file)?;
            // Some file systems do not say how large they are.
            if disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < size {
                return Err(io::ErrorKind::StorageFull.into());
            }
            reserve(file.as_file(), 0..size.min(RESERVED))?;
        }
        Ok(file)
    }

    /// Puts a verified temporary file's bytes on the disk, before it may have its name.
    ///
    /// After an error of `fdatasync` the file is lost, whatever a second call would say: it is removed, never retried.
    pub(crate) fn sync(&self, file: &NamedTempFile, digest: &Digest) -> io::Result<()> {
        failpoint("store::sync")?;
        file.as_file().sync_data()?;
        let folder = self.folder(digest);
        if !folder.is_dir() {
            failpoint("store::mkdir")?;
            fs::create_dir_all(&folder)?;
            sync_folder(folder.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        }
        Ok(())
    }

    /// Gives a synced file the object's name. Whatever had it is gone.
    pub(crate) fn publish(&self, file: NamedTempFile, digest: &Digest) -> io::Result<Stamp> {
        failpoint("store::rename")?;
        let file = file.persist(self.object(digest))?;
        Ok(Stamp::of(&file.metadata()?))
    }

    /// Makes the name last.
    pub(crate) fn sync_name(&self, digest: &Digest) -> io::Result<()> {
        failpoint("store::dirsync")?;
        sync_folder(&self.folder(digest))
    }

    pub(crate) fn open(&self, digest: &Digest) -> io::Result<(File, Stamp)> {
        failpoint("store::open")?;
        let file = File::open(self.object(digest))?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok((file, stamp))
    }

    /// Of the file that bears the object's name now, if any does.
    pub(crate) fn stamp(&self, digest: &Digest) -> Option<Stamp> {
        fs::metadata(self.object(digest)).ok().map(|meta| Stamp::of(&meta))
    }

    /// Whether there is no such file, for certain.
    pub(crate) fn is_gone(&self, digest: &Digest) -> bool {
        fs::symlink_metadata(self.object(digest)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// No error when there is no such file.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.object(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The digests of all object files; what is not named like one is passed over. Slow: for the sweep only.
    pub(crate) fn walk(&self) -> impl Iterator<Item = Digest> {
        folders(self.blobs()).flat_map(|algorithm| {
            let name =
                algorithm.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            folders(algorithm).flat_map(folders).filter_map(move |file| {
                format!("{name}:{}", file.file_name()?.to_str()?).parse::<Digest>().ok()
            })
        })
    }
}

/// Reserves a stretch of a file, in steps: nobody can write meanwhile. Not of a file in memory, which has no order to gain by
/// it: making its pages takes as long as filling them.
pub(crate) fn reserve(file: &File, stretch: Range<u64>) -> io::Result<()> {
    if is_memory(file) {
        return Ok(());
    }
    for from in stretch.clone().step_by(RESERVED as usize) {
        let bytes = RESERVED.min(stretch.end - from);
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, bytes) {
            // Not every file system can reserve; the writes will tell.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the file lies in memory and nowhere else.
pub(super) fn is_memory(file: &File) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type as u64 == TMPFS)
}

fn folders(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Stamp {
    pub(super) fn of(meta: &fs::Metadata) -> Stamp {
        let nanoseconds = |seconds: i64, more| seconds.saturating_mul(1_000_000_000).saturating_add(more);
        Stamp {
            size: meta.len(),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino() as i64,
        }
    }
}

/// Hashes a whole file, from its start, in pieces of 256 KiB. `pace` is called with the size of each piece.
pub(crate) fn rehash(file: &File, digest: &Digest, mut pace: impl FnMut(usize)) -> io::Result<bool> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    loop {
        let read = read_at(file, &mut buffer, at)?;
        if read == 0 {
            return Ok(hasher.finish() == *digest);
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
        pace(read);
    }
}

pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    failpoint("store::read")?;
    file.read_at(buffer, at)
}

pub(crate) fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    failpoint("store::write")?;
    file.write_all_at(bytes, at)
}

/// An error that a test asks for by name, as `FAILPOINTS="store::write=return(28)"`: the number is an errno, 5 (EIO) if absent.
pub(crate) fn failpoint(name: &str) -> io::Result<()> {
    fail::fail_point!(name, |errno| Err(io::Error::from_raw_os_error(
        errno.and_then(|errno| errno.parse().ok()).unwrap_or(5)
    )));
    let _ = name;
    Ok(())
}
