//! The use case "deploy by name": a function of a name is there, and runs the code of the upload, whether or not the
//! function was there before. So a client sends the same request each time.

use std::sync::Arc;

use super::{DeployError, Deployer, Upload};
use crate::domain::{Deployed, FunctionId, FunctionName};
use crate::tokens::Access;

impl Deployer {
    /// Updates the function of this name, or makes the function where there is none. Fails where several functions have
    /// the name, and where another request makes such a function meanwhile. `access` says which functions the client
    /// sees.
    pub async fn deploy_named(
        self: &Arc<Self>,
        name: FunctionName,
        upload: Upload,
        access: &Access,
    ) -> Result<Deployed, DeployError> {
        let found = self.of_name(&name, access)?;
        let upload = Upload { of_name: Some(name.clone()), ..upload };
        match found {
            Some(id) => self.update(id, upload).await,
            None => self.deploy(Upload { name: Some(name), ..upload }).await,
        }
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
