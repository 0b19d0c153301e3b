//! Strongroom renders Helm charts for Argo CD, with SOPS files opened and secret references resolved in memory.
//!
//! A module imports only what stands to its left:
//! `secret < fault < confine < environment < policy < observe < scope < sandbox < process < address < aws < web < azure < google < huawei < vault < kubernetes < document < sops < refs < chart <
//! render < cmp, http < config < logs, signals < commands < main`.

pub mod address;
pub mod aws;
pub mod azure;
pub mod chart;
pub mod cmp;
pub mod commands;
pub mod config;
pub mod confine;
pub mod document;
pub mod environment;
pub mod fault;
pub mod google;
pub mod http;
pub mod huawei;
pub mod kubernetes;
pub mod logs;
pub mod observe;
pub mod policy;
pub mod process;
pub mod redact;
pub mod refs;
pub mod render;
pub mod sandbox;
pub mod scope;
pub mod secret;
pub mod signals;
pub mod sops;
pub mod vault;
pub mod web;
