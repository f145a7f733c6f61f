//! Runtime images as rows: those that the nodes share.

use super::{Store, StoreError};
use crate::domain::ImageDigest;

impl Store {
    /// The digest by which the registry has the runtime image of this name. None where no node has pushed the image.
    pub async fn runtime_image(&self, name: &str) -> Result<Option<ImageDigest>, StoreError> {
        let select = sqlx::query_scalar("SELECT digest FROM runtime_images WHERE name = $1").bind(name);
        let digest: Option<String> = self.ask(select.fetch_optional(&self.pool())).await?;
        // A value of another form leads to a push, which writes a new value.
        Ok(digest.as_deref().and_then(ImageDigest::parse))
    }

    /// Writes down the digest by which the registry has the runtime image of this name.
    pub async fn set_runtime_image(&self, name: &str, digest: &ImageDigest) -> Result<(), StoreError> {
        let set = sqlx::query(
            "INSERT INTO runtime_images (name, digest) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET digest = excluded.digest",
        );
        self.ask(set.bind(name).bind(digest.as_str()).execute(&self.pool())).await.map(drop)
    }
}
