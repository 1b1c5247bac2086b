#!/bin/sh
# sh static_grpc.sh LINK COMMAND…: runs the command with the archives of gRPC, Protobuf, Abseil and yaml-cpp in the place of
# their shared libraries, where the distribution has them (docs/decisions/016-llctl-is-linked-statically.md).
n=$#
while [ "$n" -gt 0 ]; do
  a=$1
  shift
  n=$((n - 1))
  case $a in
    */libgrpc*.so* | */libgpr.so* | */libupb.so* | */libaddress_sorting.so* | */libabsl_*.so* | */libprotobuf.so* | */libyaml-cpp.so*)
      archive=${a%%.so*}.a
      [ -f "$archive" ] && a=$archive
      ;;
  esac
  set -- "$@" "$a"
done
exec "$@"
