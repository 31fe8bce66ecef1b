//! Files that not everybody may read, where the system knows of that.

use std::fs::{DirBuilder, OpenOptions};

/// Sets the mode of a file that is made.
pub(crate) fn with_mode(options: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
}

/// Sets the mode of a directory that is made.
pub(crate) fn with_directory_mode(builder: &mut DirBuilder, mode: u32) -> &mut DirBuilder {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, mode);
    #[cfg(not(unix))]
    let _ = mode;
    builder
}
