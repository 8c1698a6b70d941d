//! Who a request is counted for: the address of the client behind trusted proxies.
