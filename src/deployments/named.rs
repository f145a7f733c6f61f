//! The use case "deploy by name": a function of a name is there, and runs the code of the upload, whether or not the
//! function was there before. So a client sends the same request each time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Code, DeployError, Deployer, Upload, declared, digest};
use crate::domain::{Deployed, FunctionId, FunctionName, IdempotencyKey};
use crate::tokens::Access;

impl Deployer {
    /// Updates the function of this name, or makes the function where there is none. Fails where several functions have
    /// the name, and where another request makes such a function meanwhile. `access` says which functions the client
    /// sees.
    pub async fn deploy_named(
        self: &Arc<Self>,
        name: FunctionName,
        upload: Upload,
        access: Access,
    ) -> Result<Deployed, DeployError> {
        let (this, has_key) = (Arc::clone(self), upload.key.is_some());
        self.run(has_key, |stop| async move { this.deploy_named_until(name, upload, access, &stop).await }).await
    }

    async fn deploy_named_until(
        &self,
        name: FunctionName,
        upload: Upload,
        access: Access,
        stop: &CancellationToken,
    ) -> Result<Deployed, DeployError> {
        let Upload { mut zip, language, settings, manifest, key, live, .. } = upload;
        let zip_sha256 = digest::of_zip(&mut zip).await?;
        let key = key.map(|key| {
            let request_sha256 = digest::of_named(&name, &zip_sha256, language, &settings);
            IdempotencyKey { key, request_sha256 }
        });
        self.once(key, async |key| {
            // This comes after the look at the key: a request that was carried out has its answer, whatever has become
            // of its function.
            let found = self.of_name(&name, &access)?;
            let (manifest, settings) = declared::with_form(manifest, settings);
            let code = Code { zip, zip_sha256, language, manifest, live };
            match found {
                // The name in the path stands above that of the function.toml.
                Some(id) => self.update_now(id, Some(name), code, settings, key, stop).await,
                None => self.deploy_new((name, true), code, settings, key, stop).await,
            }
        })
        .await
    }

    /// The function of this name that a client sees. None where there is none, and the client may make one.
    pub fn of_name(&self, name: &FunctionName, access: &Access) -> Result<Option<FunctionId>, DeployError> {
        self.nodes.check()?;
        let functions = self.registry.list();
        let mut seen = functions.iter().filter(|function| function.name == *name && access.sees(function.id));
        match (seen.next(), seen.next()) {
            (Some(function), None) => Ok(Some(function.id)),
            (Some(_), Some(_)) => Err(DeployError::SeveralOfName(name.clone())),
            (None, _) => Ok(access.check_unlimited().map(|()| None)?),
        }
    }
}
