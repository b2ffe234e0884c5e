use bytes::Bytes;

use super::super::*;
use super::site::{KINDS, Site, at};
use crate::checkpoint::KeyedHandle;

fn checkpoint(site: &mut Site) -> KeyedHandle {
    let mut keyed = site.open(&[]);
    let count = keyed.value::<u64>("count").unwrap();
    for key in 0..50 {
        at(&mut keyed, key);
        count.set(&mut keyed, key).unwrap();
    }
    site.checkpoint(&mut keyed)
}

fn error(site: &mut Site, subtask: u32, parallelism: u32, handle: &KeyedHandle) -> String {
    match site.try_open(subtask, parallelism, std::slice::from_ref(handle)) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let handle = checkpoint(&mut site);
        for file in handle.files.iter().filter(|file| file.bytes > 0) {
            for parallelism in [1, 2] {
                let good = site.storage.get(&file.path).unwrap().unwrap();
                site.storage.delete(&file.path).unwrap();
                let text = error(&mut site, 0, parallelism, &handle);
                assert!(text.contains(&file.path) && text.contains("missing"), "{text}");
                let mut bad = good.to_vec();
                bad[good.len() / 2] ^= 1;
                site.storage.put(&file.path, Bytes::from(bad)).unwrap();
                let text = error(&mut site, 0, parallelism, &handle);
                assert!(text.contains(&file.path) && text.contains("damaged"), "{text}");
                site.storage.put(&file.path, good).unwrap();
            }
        }
        site.try_open(0, 1, &[handle]).unwrap();
    }
}

#[test]
fn a_checkpoint_of_another_backend_or_another_number_of_key_groups_is_refused() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut handle = checkpoint(&mut site);
        handle.backend = "else".into();
        let text = error(&mut site, 0, 1, &handle);
        assert!(text.contains("else backend"), "{text}");
        handle.meta = super::super::state_meta::StateMeta::default().to_bytes(1, 99).unwrap();
        let text = error(&mut site, 0, 1, &handle);
        assert!(text.contains("max_parallelism 99"), "{text}");
        handle.meta = vec![7];
        assert!(error(&mut site, 0, 1, &handle).contains("list of states"));
    }
}
