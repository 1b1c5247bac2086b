#!/bin/sh
# Compiles a precompiled header as if there were none yet. While the old one lies there, ccache takes it for one that is used:
# it then looks neither at the headers nor at what changed in them, and finds what was once made after the same old one, of
# whatever headers stood there then.
for word; do
  case $word in *.gch) rm -f -- "$word" ;; esac
done
exec "$@"
