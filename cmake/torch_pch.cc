// The precompiled header of torch needs a translation unit that owns it.
