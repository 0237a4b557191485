//! The line of this store in the table of engines.

use std::path::Path;
use std::sync::Arc;

use super::{ENGINE, RaftEngineLog};
use crate::storage::engines::LogEngine;
use crate::storage::real_files::RealFiles;
use crate::storage::{DiskRoom, LogStore, StorageConfig, StorageError};

/// Opens [`RaftEngineLog`]s.
pub(in crate::storage) struct RaftEngine;

impl LogEngine for RaftEngine {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn number(&self) -> u32 {
        1
    }

    fn summary(&self) -> &'static str {
        "TiKV's raft log store"
    }

    fn open(
        &self,
        dir: &Path,
        config: &StorageConfig,
        room: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError> {
        let files = Arc::new(RealFiles::within(room));
        Ok(Arc::new(RaftEngineLog::open_with_file_system(dir, config, files)?))
    }
}
