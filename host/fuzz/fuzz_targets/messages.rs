//! See `raft_host_tests::generate::messages`.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::{Corpus, fuzz_target};
use raft_host_tests::generate::messages;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match messages::judge(&mut Unstructured::new(bytes)) {
        Ok(_) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});
