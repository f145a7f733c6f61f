//! Receives a multipart upload to a temporary file, chunk by chunk. Of the zip this file knows the
//! function.toml only.

use std::fs::File;
use std::io;

use axum::extract::Multipart;
use axum::extract::multipart::{Field, MultipartError};
use thiserror::Error;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::manifest::{self, ManifestError};
use super::settings::{self, SettingError};
use crate::deployments::Upload;
use crate::domain::settings::Change;
use crate::domain::{FunctionName, InvalidName, UnknownLanguage};
use crate::resources::scratch::{Scratch, Temporary};

/// The largest text of a form field, in bytes.
const MAX_TEXT: usize = 1024;
/// The largest JSON text of environment or secrets, in bytes, escapes included.
const MAX_VARIABLES: usize = 512 << 10;

/// The reason to refuse an upload.
#[derive(Debug, Error)]
pub(in crate::http) enum UploadError {
    #[error("the multipart body is malformed")]
    Multipart(#[from] MultipartError),
    #[error("the file in the form field `code` is larger than the limit of {limit} bytes (MAX_FILE_SIZE)")]
    TooLarge { limit: u64 },
    #[error("the form has no file field `code`; send the zip as `-F code=@function.zip`")]
    Missing,
    #[error("the form has the field `{0}` twice")]
    Twice(&'static str),
    #[error("the form has an unknown field {0:?}; there are `code`, `name`, `language`, \
             {fields}", fields = settings::FIELDS.join(", "))]
    Unknown(String),
    #[error("the form field `{0}` is not a text of at most {1} bytes in UTF-8")]
    NotText(&'static str, usize),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Language(#[from] UnknownLanguage),
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("failed to keep the upload")]
    Io(#[from] io::Error),
}

/// Reads the whole form, and the function.toml of the zip. The zip goes to a file of `scratch`.
pub(in crate::http) async fn receive(
    mut form: Multipart,
    scratch: &Scratch,
    max_file_size: u64,
) -> Result<Upload, UploadError> {
    let (mut zip, mut file_name, mut name, mut language) = (None, None, None, None);
    let (mut settings, mut fields) = (Change::default(), Vec::new());
    while let Some(field) = form.next_field().await? {
        let setting = settings::FIELDS.into_iter().find(|&setting| field.name() == Some(setting));
        match field.name() {
            Some("code") => {
                file_name = field.file_name().map(FunctionName::from_file_name);
                let file = receive_file(field, scratch, max_file_size).await?;
                set("code", &mut zip, file)?;
            }
            Some("name") => set("name", &mut name, receive_text("name", field, MAX_TEXT).await?.parse()?)?,
            Some("language") => {
                set("language", &mut language, receive_text("language", field, MAX_TEXT).await?.parse()?)?
            }
            _ if let Some(setting) = setting => {
                if fields.contains(&setting) {
                    return Err(UploadError::Twice(setting));
                }
                fields.push(setting);
                settings::set(&mut settings, setting, &receive_text(setting, field, MAX_VARIABLES).await?)?;
            }
            other => return Err(UploadError::Unknown(other.unwrap_or_default().chars().take(64).collect())),
        }
    }
    let zip = zip.ok_or(UploadError::Missing)?;
    let default_name = file_name.unwrap_or_else(|| FunctionName::from_file_name(""));
    let manifest = manifest::of_zip(zip.share()?).await?;
    Ok(Upload { zip, name, default_name, language, settings, manifest, key: None, live: None })
}

fn set<T>(field: &'static str, place: &mut Option<T>, value: T) -> Result<(), UploadError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UploadError::Twice(field)),
    }
}

async fn receive_file(mut field: Field<'_>, scratch: &Scratch, limit: u64) -> Result<Temporary<File>, UploadError> {
    let zip = scratch.file().await?;
    let mut file = tokio::fs::File::from_std(zip.share()?);
    let mut size = 0;
    while let Some(chunk) = field.chunk().await? {
        size += chunk.len() as u64;
        if size > limit {
            return Err(UploadError::TooLarge { limit });
        }
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    file.rewind().await?;
    Ok(zip)
}

async fn receive_text(name: &'static str, mut field: Field<'_>, limit: usize) -> Result<String, UploadError> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        text.extend_from_slice(&chunk);
        if text.len() > limit {
            return Err(UploadError::NotText(name, limit));
        }
    }
    String::from_utf8(text).map_err(|_| UploadError::NotText(name, limit))
}
