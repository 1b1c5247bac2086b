# LibTorch out of the PyPI wheel, without its TorchConfig.cmake: that one fails where no CUDA toolkit is installed.
#
# Targets:
#   ll_torch       libtorch_cpu + libc10 and the wheel's headers. All that ll-trainer links: a CPU host loads no CUDA.
#   ll_torch_cuda  libtorch_cuda + libc10_cuda, only where nvcc was found. Linked by libll_cuda.so alone, which
#                  ll-trainer opens at run time when it is given a GPU.
# LL_CUDA_FOUND says whether the CUDA parts are built.
set(LL_VENV ${CMAKE_SOURCE_DIR}/build/venv CACHE PATH "Python environment that holds torch (deploy/bootstrap.sh makes it)")
file(GLOB LL_SITE ${LL_VENV}/lib/python3*/site-packages)
if(NOT EXISTS "${LL_SITE}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "no LibTorch in ${LL_VENV}: run 'bash deploy/bootstrap.sh' first, or give -DLL_VENV=DIR of a "
                      "Python environment with torch, or -DLL_TRAINER=OFF to build only the service half")
endif()
file(REAL_PATH ${LL_SITE} LL_SITE)
set(LL_TORCH ${LL_SITE}/torch)
message(STATUS "LibTorch: ${LL_TORCH}")

file(GLOB LL_CUDA_RUNTIME ${LL_SITE}/nvidia/cu13/lib)
set(LL_TORCH_RPATH ${LL_TORCH}/lib ${LL_CUDA_RUNTIME})

add_library(ll_torch INTERFACE)
target_include_directories(ll_torch SYSTEM INTERFACE ${LL_TORCH}/include ${LL_TORCH}/include/torch/csrc/api/include)
target_compile_definitions(ll_torch INTERFACE USE_C10D_GLOO USE_DISTRIBUTED)
target_link_libraries(ll_torch INTERFACE ${LL_TORCH}/lib/libtorch_cpu.so ${LL_TORCH}/lib/libc10.so)
# ATen's parallel loops live in its headers and run on one thread unless their user is compiled for OpenMP. The
# run-time library is the one torch itself uses: two in one process would each start a thread pool.
file(GLOB LL_GOMP ${LL_TORCH}/lib/libgomp*.so*)
target_compile_options(ll_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(ll_torch INTERFACE ${LL_GOMP})
# libtorch_cpu.so wants CUDA's run-time libraries (cupti and such) that pip put beside it; it finds them by itself. In
# the build tree programs find torch by the run path that CMake gives them, installed ones by deploy/CMakeLists.txt's.
foreach(dir ${LL_TORCH_RPATH})
  target_link_options(ll_torch INTERFACE -Wl,-rpath-link,${dir})
endforeach()
# The distribution's linker default would hide an unresolved symbol of a library we never call.
target_link_options(ll_torch INTERFACE -Wl,--allow-shlib-undefined)

# ll_torch_library: as ll_library, linked to torch and with torch's precompiled header.
ll_pch(torch HEADERS <ATen/ATen.h> DEPS ll_torch)
function(ll_torch_library name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  set(LL_PCH torch)
  ll_library(${name} SRCS ${A_SRCS} DEPS ${A_DEPS} ll_torch)
endfunction()

set(LL_CUDA_FOUND OFF)
if(LL_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER AND EXISTS ${LL_TORCH}/lib/libtorch_cuda.so)
    # A100 and what follows it in 8.x; H100 and H200; what comes later compiles 90's PTX when it is loaded.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90 90a-real CACHE STRING "GPU architectures")
    set(CMAKE_CUDA_STANDARD 17)
    enable_language(CUDA)
    set(LL_CUDA_FOUND ON)
    find_path(LL_CUDA_INCLUDE cuda_runtime.h HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} REQUIRED)
    add_library(ll_torch_cuda INTERFACE)
    target_include_directories(ll_torch_cuda SYSTEM INTERFACE ${LL_CUDA_INCLUDE})
    target_link_libraries(ll_torch_cuda INTERFACE ll_torch ${LL_TORCH}/lib/libtorch_cuda.so ${LL_TORCH}/lib/libc10_cuda.so)
  endif()
endif()
message(STATUS "CUDA parts: ${LL_CUDA_FOUND}")
