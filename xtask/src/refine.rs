use crate::Failure;
pub(crate) fn refine(_name: &str, code: &str) -> Result<String, Failure> { Ok(code.to_owned()) }
