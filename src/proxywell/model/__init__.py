"""The words of proxywell as frozen types: what one room hands to the next. No I/O."""
