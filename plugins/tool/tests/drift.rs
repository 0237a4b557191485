//! Sources and committed modules belong together. Needs no wasm toolchain.

use raft_host_plugins::{PLUGINS, Source, manifest, root};

#[test]
fn every_module_was_built_from_the_sources_beside_it() {
    let root = root();
    let recorded = std::fs::read_to_string(root.join(manifest::PATH)).unwrap();
    let current = manifest::current(&root).unwrap();
    assert!(
        recorded == current,
        "sources and committed modules have drifted apart: run plugins/build and commit what it \
         changes\nrecorded:\n{recorded}\ncurrent:\n{current}"
    );
}

#[test]
fn wat_plugins_assemble_to_their_modules() {
    for plugin in PLUGINS {
        if let Source::Wat { file } = plugin.source {
            let module = std::fs::read(root().join(plugin.module)).unwrap();
            let assembled = wat::parse_file(root().join(file)).unwrap();
            assert!(module == assembled, "{} is not what {file} says", plugin.module);
        }
    }
}
