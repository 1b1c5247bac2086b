# Compiler settings and the four functions every folder uses: ll_library, ll_binary, ll_test, ll_bench.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# -g1 keeps line numbers in stack traces at a fraction of the link time of -g.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")

find_program(LL_CCACHE ccache)
if(LL_CCACHE)
  # Paths below the source root are hashed relative to it, so that clones share the cache; the sloppiness is what
  # ccache asks for where a precompiled header is used.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
                                  CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${LL_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
find_program(LL_MOLD mold)
if(LL_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
if(LL_SANITIZE)
  # -O1: half the time to compile, and better stack traces.
  add_compile_options(-fsanitize=${LL_SANITIZE} -fno-omit-frame-pointer -O1)
  add_link_options(-fsanitize=${LL_SANITIZE})
endif()
if(LL_FUZZ)
  # -O1: the bodies that the sanitizers check stay readable in stack traces, and compiling is three times faster.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
if(LL_SANITIZE STREQUAL "thread")
  # Under this macro protobuf's headers lay maps out differently than the distribution's library, which was built
  # without it.
  add_compile_options(-U__SANITIZE_THREAD__)
endif()

find_package(absl REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(OpenSSL REQUIRED)
if(LL_TESTS)
  find_package(GTest REQUIRED)
endif()

# Precompiled headers: parsing Abseil, nlohmann-json, Protobuf and GoogleTest takes most of the time to compile a file
# here. LL_PCH names the one that a folder's targets use: plain, service (LlProto), torch (LlTorch), or empty for none.
# ll_pch(NAME HEADERS … [DEPS …]) makes one. Executables are compiled with -fPIC for its sake: it is ignored otherwise.
set(LL_PCH plain)
set(LL_PCH_HEADERS <algorithm> <functional> <map> <memory> <optional> <set> <string> <vector>
    <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/strings/str_format.h> <absl/strings/str_split.h>
    <absl/synchronization/mutex.h> <absl/time/time.h> <nlohmann/json.hpp>)
if(LL_TESTS)
  list(APPEND LL_PCH_HEADERS <gmock/gmock.h> <gtest/gtest.h>)
  add_compile_definitions(GTEST_HAS_PTHREAD=1)  # as GTest::gtest has it: a precompiled header wants the same in all
endif()
function(ll_pch name)
  cmake_parse_arguments(A "" "" "HEADERS;DEPS" ${ARGN})
  add_library(ll_pch_${name} OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cc)
  target_link_libraries(ll_pch_${name} PUBLIC ${A_DEPS} absl::statusor absl::synchronization absl::time absl::str_format
                                              nlohmann_json::nlohmann_json)
  if(LL_TESTS)
    target_link_libraries(ll_pch_${name} PUBLIC GTest::gmock GTest::gtest)
  endif()
  target_precompile_headers(ll_pch_${name} PRIVATE ${A_HEADERS} ${LL_PCH_HEADERS})
  # Generated headers change without the command that compiles them.
  if(LL_CCACHE AND ll_proto IN_LIST A_DEPS)
    set_target_properties(ll_pch_${name} PROPERTIES
      CXX_COMPILER_LAUNCHER "${CMAKE_SOURCE_DIR}/cmake/without_old_pch.sh;${CMAKE_CXX_COMPILER_LAUNCHER}")
  endif()
endfunction()
# ll_unity(TARGET [APART a.cc …]): its files are compiled eight at a time, which takes a third of the time where headers
# are heavy: what they include and instantiate is done once. Names in anonymous namespaces must differ; files whose do not are compiled APART.
option(LL_UNITY "Compile several files at a time in the largest libraries" ON)
function(ll_unity target)
  cmake_parse_arguments(A "" "" "APART" ${ARGN})
  if(LL_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    set_source_files_properties(${A_APART} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()
function(ll_use_pch target)
  if(LL_PCH)
    target_precompile_headers(${target} REUSE_FROM ll_pch_${LL_PCH})
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
  endif()
endfunction()
ll_pch(plain)

function(ll_warnings target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> -Werror=return-type>)
endfunction()

# ll_library(NAME SRCS a.cc … [DEPS t …]) makes a static library whose includes start at the source root.
function(ll_library name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SRCS})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${A_DEPS})
  ll_warnings(${name})
  ll_use_pch(${name})
endfunction()

function(ll_binary name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_DEPS})
  ll_warnings(${name})
  ll_use_pch(${name})
endfunction()

# ll_test(NAME SRCS x_test.cc … [DEPS t …] [LABELS quick|full|nightly …] [TIMEOUT s] [THREADED]) is a GoogleTest program
# run as one ctest entry. Every test has a deadline; the default label is quick. THREADED: its code runs on several
# threads; ThreadSanitizer's build has those alone (target threaded_tests).
function(ll_test name)
  cmake_parse_arguments(A "THREADED" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT LL_TESTS OR (LL_SANITIZE STREQUAL "thread" AND NOT A_THREADED))
    return()
  endif()
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  ll_warnings(${name})
  ll_use_pch(${name})
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT A_LABELS)
    set(A_LABELS quick)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT})
  if(A_THREADED)
    if(NOT TARGET threaded_tests)
      add_custom_target(threaded_tests)
    endif()
    add_dependencies(threaded_tests ${name})
  endif()
  if(LL_SANITIZE STREQUAL "thread")
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "LD_PRELOAD=$<TARGET_FILE:tsan_absl_mutex>")
  endif()
endfunction()

# ll_bench(NAME SRCS x_bench.cc … DEPS …) is a google-benchmark program; it is built with the tests and run by hand.
function(ll_bench name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  if(NOT LL_TESTS)
    return()
  endif()
  find_package(benchmark REQUIRED)
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_DEPS} benchmark::benchmark)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
  ll_warnings(${name})
  ll_use_pch(${name})
endfunction()
