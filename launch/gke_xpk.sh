#!/usr/bin/env bash
# One or several TPU slices of a GKE cluster that XPK made.
#
#   export PROJECT=p ZONE=us-central2-b CLUSTER=c NAME=flan TYPE=v5p-128 SLICES=2
#   export IMAGE=us-docker.pkg.dev/p/flan/tpu:1 STORAGE=data
#   launch/gke_xpk.sh run -- flan-jax train --gin_file ... --cache_dir /data/C --workdir /data/W
#
#   run      starts the command on every host. Exit status 75 (preempted, checkpoint saved) and the
#            loss of a node start it again; others end it
#   logs     follows the first host of the first slice
#   delete   has the command save and leave, and forgets it
#
# --dry_run prints the commands and stops. STORAGE is what `xpk storage attach` mounted at /data:
# every host must see the same cache and workdir.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_verb 'run logs delete' "$@"
need NAME 'what the workload is called, any name'
if [[ $verb == logs ]]; then
  need_program kubectl 'Install it: gcloud components install kubectl.'
  labels="xpk.google.com/workload=$NAME,jobset.sigs.k8s.io/job-index=0"
  run kubectl logs --follow --selector="$labels,batch.kubernetes.io/job-completion-index=0"
  exit
fi

need_program xpk 'Install it in an environment of its own: pip install xpk.'
need PROJECT 'the Google Cloud project, such as my-project'
need ZONE 'where the cluster is, such as us-central2-b'
need CLUSTER 'the name of the cluster, as in xpk cluster create'
words=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" --workload="$NAME")
if [[ $verb == delete ]]; then
  run xpk workload delete "${words[@]}" --force
  exit
fi

need TYPE 'the kind and size of a slice, such as v5p-128'
need IMAGE 'the image of target tpu of launch/Dockerfile, in a registry that the cluster can read'
need STORAGE 'the name of a storage that XPK mounts at /data'
# XPK's wrapper signals its own subshell; exec makes that the command itself.
run xpk workload create "${words[@]}" --tpu-type="$TYPE" --num-slices="${SLICES:-1}" \
  --docker-image="$IMAGE" --storage="$STORAGE" --priority="${PRIORITY:-medium}" \
  --restart-on-exit-codes=75 --max-restarts="${MAX_RESTARTS:-100}" \
  --termination-grace-period-seconds=600 --command "exec $(quoted "${command[@]}")"
