//! No file name in the directory of links, and no target, makes the parser panic or gives a name that Kubernetes cannot have.
//!
//! The input is the file name, then after a NUL the target.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oom_watcher::names::link;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (file_name, target) = text.split_once('\0').unwrap_or((&text, ""));
    for target in [None, Some(target)] {
        let Some(link) = link::parse(file_name, target) else { continue };
        assert!(link::key(file_name).is_some());
        for name in [&link.name.namespace, &link.name.pod, &link.name.container] {
            assert!(!name.is_empty() && name.len() <= 253);
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
            );
        }
        assert!(link.id_prefix.len() < 64);
    }
    let _ = (link::pod_directory(file_name), link::restart(file_name));
});
