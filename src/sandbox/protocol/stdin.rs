//! The bytes that a function reads from stdin.

use std::fs::File;
use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt};

use crate::resources::scratch::Temporary;

/// The size of the pieces of a file on the way to a bootstrap, in bytes.
const PIECE: usize = 64 << 10;

/// The content of a function's stdin.
#[derive(Debug)]
pub enum Stdin {
    /// In memory.
    Memory(Vec<u8>),
    /// On disk.
    File(Spooled),
}

/// A file with the content of a function's stdin.
#[derive(Debug)]
pub struct Spooled {
    /// The file.
    pub file: Temporary<File>,
    /// How many bytes of the file are the content.
    pub size: usize,
}

impl Stdin {
    /// The number of bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(file) => file.size,
        }
    }
}

impl Spooled {
    /// Writes all bytes to a pipe, in pieces.
    pub(super) async fn write_to(&self, pipe: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut file = tokio::fs::File::from_std(self.file.share()?);
        file.rewind().await?;
        let (mut piece, mut left) = (vec![0; PIECE], self.size);
        while left > 0 {
            let room = left.min(PIECE);
            let read = file.read(&mut piece[..room]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            pipe.write_all(&piece[..read]).await?;
            left -= read;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::resources::scratch::Scratch;

    #[tokio::test]
    async fn a_file_goes_whole_and_no_further() {
        let parent = tempfile::tempdir().unwrap();
        let mut file = Scratch::new(parent.path().to_owned(), TaskTracker::new()).file().await.unwrap();
        let content: Vec<u8> = (0..3 * PIECE + 5).map(|n| n as u8).collect();
        let written = content.clone();
        file.with(move |file| file.write_all(&written)).await.unwrap().unwrap();
        let stdin = Spooled { file, size: content.len() - 2 };
        for _ in 0..2 {
            let mut sent = Vec::new();
            stdin.write_to(&mut sent).await.unwrap();
            assert_eq!(sent, content[..content.len() - 2]);
        }
    }
}
