# gRPC and Protobuf of the distribution, and ll_proto(NAME a.proto …): a library of generated code.
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(spdlog REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(CLI11 CONFIG QUIET)
find_program(LL_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)

function(ll_proto name)
  set(gen ${CMAKE_BINARY_DIR}/generated)
  set(sources)
  foreach(proto ${ARGN})
    get_filename_component(stem ${proto} NAME_WE)
    get_filename_component(file ${proto} ABSOLUTE)
    set(out ${gen}/proto/${stem})
    add_custom_command(
      OUTPUT ${out}.pb.cc ${out}.pb.h ${out}.grpc.pb.cc ${out}.grpc.pb.h
      COMMAND ${CMAKE_COMMAND} -E make_directory ${gen}
      COMMAND ${Protobuf_PROTOC_EXECUTABLE} -I ${CMAKE_SOURCE_DIR} --cpp_out=${gen} --grpc_out=${gen}
              --plugin=protoc-gen-grpc=${LL_GRPC_PLUGIN} ${file}
      DEPENDS ${file} COMMENT "protoc ${proto}")
    list(APPEND sources ${out}.pb.cc ${out}.grpc.pb.cc)
  endforeach()
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${gen})
  target_link_libraries(${name} PUBLIC gRPC::grpc++ gRPC::grpc++_reflection grpc++_error_details protobuf::libprotobuf)
endfunction()
