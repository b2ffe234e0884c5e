//! Restoring an instance: the files of the same key groups are opened as they are; otherwise the
//! owned key groups are copied out of the old instances, through sorted files that RocksDB takes
//! over whole.

use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use super::key_group::KeyGroupRange;
use super::map_store::check_kind;
use super::owned_directory::{OwnedDirectory, fresh_directory};
use super::parallel::in_parallel;
use super::rocks_backend::KIND;
use super::rocks_options::{Shared, key_group_bounds};
use super::rocks_snapshot::{Uploaded, is_shared};
use super::rocks_store::{FAMILIES, Instance, failed};
use super::store::{Family, StoreSite};
use crate::checkpoint::{CheckpointStorage, FileHandle, KeyedHandle, fetch};
use crate::{Error, Result};

/// A copied file is closed at this size.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// Opens an instance in `directory` with the restored key groups that it owns, and no others.
/// Also answers which files the store has already.
pub(super) fn restore(
    shared: &Shared,
    site: &StoreSite<'_>,
    directory: OwnedDirectory,
) -> Result<(Instance, Uploaded)> {
    let handles: Vec<&KeyedHandle> = site.restored.keyed().collect();
    for handle in &handles {
        check_kind(handle, KIND)?;
    }
    if let [handle] = handles.as_slice()
        && handle.key_groups == site.key_groups
    {
        download(shared, site.storage, &handle.files, &directory.0)?;
        let files = handle.files.iter().filter(|file| is_shared(&file.name));
        let uploaded = files.map(|file| (file.name.clone(), file.clone())).collect();
        return Ok((Instance::open(shared, directory)?, uploaded));
    }
    let target = Instance::open(shared, directory)?;
    for handle in handles {
        if let Some(range) = handle.key_groups.intersection(&site.key_groups) {
            copy(shared, site.storage, handle, range, &target)?;
        }
    }
    Ok((target, Uploaded::new()))
}

fn download(
    shared: &Shared,
    storage: &dyn CheckpointStorage,
    files: &[FileHandle],
    directory: &Path,
) -> Result<()> {
    in_parallel(shared.config.transfers, files, |file| {
        if file.name.contains(['/', '\\']) || file.name.starts_with("..") {
            return Err(Error::external(format!(
                "checkpoint file {} has the name {:?}",
                file.path, file.name
            )));
        }
        fetch(storage, file, &directory.join(&file.name))
    })?;
    Ok(())
}

/// Copies a range of key groups out of an old instance.
fn copy(
    shared: &Shared,
    storage: &dyn CheckpointStorage,
    handle: &KeyedHandle,
    range: KeyGroupRange,
    target: &Instance,
) -> Result<()> {
    let beside = |what: &str| {
        let name = target.path().file_name().map(|name| name.to_string_lossy().into_owned());
        let name = format!("{}-{what}", name.unwrap_or_default());
        fresh_directory(target.path().parent().unwrap_or(Path::new(".")), &name).map(OwnedDirectory)
    };
    let old = beside("old")?;
    download(shared, storage, &handle.files, &old.0)?;
    let old = Instance::open_read_only(shared, old)?;
    let sorted = beside("copy")?;
    for (family, _) in FAMILIES {
        let files = write_sorted(shared, &old, family, range, &sorted.0)?;
        if files.is_empty() {
            continue;
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        target
            .db()
            .ingest_external_file_cf_opts(target.family(family)?, &options, files)
            .map_err(|error| target.failed("take over copied files", error))?;
    }
    Ok(())
}

/// Writes a family's keys of a range of key groups into sorted files.
fn write_sorted(
    shared: &Shared,
    old: &Instance,
    family: Family,
    range: KeyGroupRange,
    directory: &Path,
) -> Result<Vec<PathBuf>> {
    let options = shared.options();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut writer: Option<SstFileWriter<'_>> = None;
    let broken = |error| failed("write sorted files", directory, error);
    let (from, to) = key_group_bounds(range);
    old.scan(family, &from..&to, &mut |key, value| {
        if writer.as_ref().is_some_and(|writer| writer.file_size() >= COPY_BYTES_MAX)
            && let Some(mut full) = writer.take()
        {
            full.finish().map_err(broken)?;
        }
        if writer.is_none() {
            let path = directory.join(format!("{family:?}-{:06}.sst", files.len()));
            let fresh = SstFileWriter::create(&options);
            fresh.open(&path).map_err(broken)?;
            files.push(path);
            writer = Some(fresh);
        }
        if let Some(writer) = &mut writer {
            writer.put(key, value).map_err(broken)?;
        }
        Ok(true)
    })?;
    if let Some(mut last) = writer {
        last.finish().map_err(broken)?;
    }
    Ok(files)
}
