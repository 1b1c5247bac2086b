// A precompiled header needs a translation unit that owns it.
