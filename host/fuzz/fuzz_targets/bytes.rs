//! Bytes that claim to be a module.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use raft_host_tests::generate::verdict;
use raft_host_tests::hostile;

static LOADERS: LazyLock<[raft_host_tests::hostile::Loader; 2]> =
    LazyLock::new(|| [hostile::loader(), hostile::loader()]);

fuzz_target!(|bytes: &[u8]| {
    verdict::judge(&LOADERS[0], &LOADERS[1], bytes);
});
