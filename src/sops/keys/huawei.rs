//! HuaweiCloud KMS (`hckms`): one `decrypt-data` or `encrypt-data` per data key, in the region that the file or rule names.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::fault::Class;
use crate::huawei::{Huawei, HuaweiError};
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// KMS takes ciphertexts of up to 5648 bytes.
const ENC_LIMIT: usize = 16 * 1024;

/// Asks HuaweiCloud KMS.
#[derive(Debug)]
pub struct HuaweiKms {
    huawei: Arc<Huawei>,
}

impl HuaweiKms {
    /// Credentials and connections are those of `huawei`.
    pub fn new(huawei: Arc<Huawei>) -> Self {
        Self { huawei }
    }

    async fn decrypt(&self, key_id: &str, enc: &str) -> Result<DataKey, UnwrapError> {
        if enc.len() > ENC_LIMIT {
            return Err(UnwrapError::new(Class::Invalid, "the sealed key is too large"));
        }
        Ok(self.huawei.decrypt(key_id, enc.trim()).await?)
    }
}

impl KeyUnwrap for HuaweiKms {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            let SealedKey::HuaweiKms { key_id, enc } = key else { return None };
            Some(self.decrypt(key_id, enc).await)
        }
        .boxed()
    }
}

impl KeyWrap for HuaweiKms {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move {
            let SealedKey::HuaweiKms { key_id, .. } = key else { return None };
            Some(self.huawei.encrypt(key_id, data_key).await.map_err(UnwrapError::from))
        }
        .boxed()
    }
}

impl From<HuaweiError> for UnwrapError {
    fn from(error: HuaweiError) -> Self {
        Self::new(error.class, error.reason)
    }
}
