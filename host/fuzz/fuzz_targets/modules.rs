//! See `raft_host_tests::generate::modules`.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Unstructured;
use libfuzzer_sys::{Corpus, fuzz_target};
use raft_host_tests::generate::{modules, verdict};
use raft_host_tests::hostile;

static LOADERS: LazyLock<[raft_host_tests::hostile::Loader; 2]> =
    LazyLock::new(|| [hostile::loader(), hostile::loader()]);

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(module) = modules::module(&mut Unstructured::new(bytes)) else { return Corpus::Reject };
    verdict::judge(&LOADERS[0], &LOADERS[1], &module);
    Corpus::Keep
});
