// The service ll.v1.Admin: workers, and the registries of models and data.
#pragma once

#include "coordinator/api/admission.h"
#include "coordinator/api/call.h"
#include "coordinator/api/path_check.h"
#include "proto/admin.grpc.pb.h"

namespace ll {

class AdminService : public v1::Admin::CallbackService {
 public:
  AdminService(const ApiContext& api, PathChecker& workers, AdmissionOptions options)
      : api_(api), workers_(workers), options_(options) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* CordonWorker(grpc::CallbackServerContext* context,
                                         const v1::CordonWorkerRequest* request,
                                         v1::Worker* response) override;
  grpc::ServerUnaryReactor* SetQueue(grpc::CallbackServerContext* context,
                                     const v1::SetQueueRequest* request,
                                     v1::Queue* response) override;
  grpc::ServerUnaryReactor* ListQueues(grpc::CallbackServerContext* context,
                                       const v1::ListQueuesRequest* request,
                                       v1::ListQueuesResponse* response) override;
  grpc::ServerUnaryReactor* AddModel(grpc::CallbackServerContext* context,
                                     const v1::AddModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* AddData(grpc::CallbackServerContext* context,
                                    const v1::AddDataRequest* request, v1::Data* response) override;
  grpc::ServerUnaryReactor* ListData(grpc::CallbackServerContext* context,
                                     const v1::ListDataRequest* request,
                                     v1::ListDataResponse* response) override;
  grpc::ServerUnaryReactor* Version(grpc::CallbackServerContext* context,
                                    const v1::VersionRequest* request,
                                    v1::VersionResponse* response) override;

 private:
  const ApiContext& api_;
  PathChecker& workers_;
  const AdmissionOptions options_;
};

}  // namespace ll
