#!/usr/bin/env bash
# One TPU slice of any size as TPU VMs, had through a queued resource: one container on each VM.
#
#   export PROJECT=p ZONE=us-central2-b NAME=flan TYPE=v4-64
#   export IMAGE=us-docker.pkg.dev/p/flan/tpu:1 NFS=10.0.0.2:/share
#   launch/tpu_vm.sh create
#   launch/tpu_vm.sh run -- flan-jax train --gin_file ... --cache_dir /data/C --workdir /data/W
#
#   create   asks for the slice and waits until it is there; SPOT=1: one that may be preempted
#   run      runs the command on every VM and follows it. Exit status 75 (preempted, checkpoint
#            saved) or a lost connection starts it again, on a new slice if this one is gone.
#            Ctrl-C only stops following; `run` then follows what still runs
#   logs     follows the first VM
#   stop     has the command save and leave; end `run` first, which would start it again
#   delete   gives the slice back
#
# --dry_run prints the commands and stops. RUNTIME names a VM image other than the usual one. NFS is
# a shared folder, mounted at /data: every VM must see the same cache and workdir.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_verb 'create run logs stop delete' "$@"
need_program gcloud 'Install the Google Cloud SDK: https://cloud.google.com/sdk/docs/install.'
need PROJECT 'the Google Cloud project, such as my-project'
need ZONE 'where the TPUs are, such as us-central2-b'
need NAME 'what the slice is called, any name'
# `run` too may have to create one, when it is too late to ask.
[[ ! $verb =~ ^(create|run)$ ]] ||
  need TYPE 'the kind and size of the slice, such as v4-64 or v5litepod-256'
where=(--project="$PROJECT" --zone="$ZONE")
queued=(gcloud compute tpus queued-resources)

create() {
  local runtime="${RUNTIME:-}"
  [[ $runtime ]] || case "$TYPE" in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=tpu-ubuntu2204-base ;;
  esac
  run "${queued[@]}" create "$NAME" "${where[@]}" --node-id="$NAME" \
    --accelerator-type="$TYPE" --runtime-version="$runtime" ${SPOT:+--spot}
  [[ $dry_run ]] || wait_until_active
}
wait_until_active() {
  local now
  while now="$(state)"; do
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDED) die "$NAME is $now: delete it and create it again." ;;
    esac
    sleep 30
  done
  die "gcloud cannot say what became of $NAME; its message stands above."
}
state() { "${queued[@]}" describe "$NAME" "${where[@]}" --format='value(state.state)'; }
delete() { run "${queued[@]}" delete "$NAME" "${where[@]}" --force --quiet; }
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker="$1" --command "$2"
}

# What each VM does. The container outlives the connection that started it.
remote() {
  need IMAGE 'the image of target tpu of launch/Dockerfile, in a registry that the VMs can read'
  need NFS 'the NFS share with the cache and the workdir, such as 10.0.0.2:/share'
  cat << EOF
if [ -z "\$(sudo docker ps --quiet --filter name=^flan-jax\$)" ]; then
  sudo docker rm flan-jax > /dev/null 2>&1
  sudo gcloud auth configure-docker $(quoted "${IMAGE%%/*}") --quiet
  sudo docker volume create --opt type=nfs --opt o=addr=$(quoted "${NFS%%:*}"),rw \\
    --opt device=:$(quoted "${NFS#*:}") flan-jax || exit
  sudo docker run --detach --name flan-jax --privileged --network host --volume flan-jax:/data \\
    $(quoted "$IMAGE" "${command[@]}") || exit
fi
sudo docker logs --follow flan-jax
exit "\$(sudo docker wait flan-jax)"
EOF
}

case "$verb" in
  create | delete) "$verb" ;;
  logs) on_workers 0 'sudo docker logs --follow flan-jax' ;;
  stop) on_workers all 'sudo docker stop --time 600 flan-jax' ;;
  run)
    on_each="$(remote)"
    while status=0; on_workers all "$on_each" || status=$?; ((status == 75 || status == 255)); do
      echo "Exit status $status: going on from the last checkpoint." >&2
      sleep 30 # until Google Cloud has noticed
      now="$(state)"
      [[ ! $now =~ ^(SUSPENDED|FAILED)$ ]] || { delete; create; }
    done
    exit "$status"
    ;;
esac
