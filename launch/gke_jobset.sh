#!/usr/bin/env bash
# One or several TPU slices of a GKE cluster with JobSet, through launch/gke/jobset.yaml.
#
#   export NAME=flan ACCELERATOR=tpu-v5p-slice TOPOLOGY=4x4x4 SLICES=2
#   export IMAGE=us-docker.pkg.dev/p/flan/tpu:1 CLAIM=data
#   launch/gke_jobset.sh run -- flan-jax train --gin_file ... --cache_dir /data/C --workdir /data/W
#
#   run      starts the command on every host. Exit status 75 (preempted, checkpoint saved) and the
#            loss of a node start it again, without limit; other failures MAX_RESTARTS times
#   logs     follows the first host of the first slice
#   delete   has the command save and leave, and forgets it
#
# --dry_run prints the manifest, or the command, and stops. CLAIM is a PersistentVolumeClaim that
# many nodes may write (ReadWriteMany), mounted at /data: every host must see the same cache and
# workdir. CHIPS_PER_HOST is 4 unless set.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_verb 'run logs delete' "$@"
need_program kubectl 'Install it: gcloud components install kubectl.'
need NAME 'what the JobSet is called, any name'
first="jobset.sigs.k8s.io/jobset-name=$NAME,jobset.sigs.k8s.io/job-global-index=0"
case "$verb" in
  logs)
    run kubectl logs --follow --selector="$first,batch.kubernetes.io/job-completion-index=0"
    exit ;;
  delete) run kubectl delete jobset "$NAME"; exit ;;
esac

need ACCELERATOR 'the node label gke-tpu-accelerator, such as tpu-v5p-slice'
need TOPOLOGY 'the chips of a slice, such as 4x4x4'
need IMAGE 'the image of target tpu of launch/Dockerfile, in a registry that the cluster can read'
need CLAIM 'the PersistentVolumeClaim to mount at /data'
[[ $TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] ||
  die "TOPOLOGY is '$TOPOLOGY'; write it as 4x4x4, or 16x16 for v5e and v6e."
: "${SLICES:=1}" "${CHIPS_PER_HOST:=4}" "${MAX_RESTARTS:=3}"
for variable in SLICES CHIPS_PER_HOST MAX_RESTARTS; do need_number "$variable"; done
chips=$((${TOPOLOGY//x/*}))
HOSTS=$((chips / CHIPS_PER_HOST))
((HOSTS * CHIPS_PER_HOST == chips)) ||
  die "TOPOLOGY $TOPOLOGY is $chips chips, no multiple of CHIPS_PER_HOST=$CHIPS_PER_HOST."

COMMAND='' # as JSON, which YAML reads; Kubernetes makes one $ of two
for word in "${command[@]}"; do
  word="${word//\$/'$$'}"
  word="${word//\\/\\\\}"
  word="${word//\"/\\\"}"
  COMMAND+="${COMMAND:+, }\"${word//$'\n'/\\n}\""
done
COMMAND="[$COMMAND]"

manifest="$(< "$(dirname "${BASH_SOURCE[0]}")/gke/jobset.yaml")"
for variable in NAME SLICES HOSTS ACCELERATOR TOPOLOGY CHIPS_PER_HOST MAX_RESTARTS IMAGE CLAIM \
  COMMAND; do # last: what it holds is not filled in
  # Quoted, or bash 5.2 reads & in the value as the text that was found.
  manifest="${manifest//"\${$variable}"/"${!variable}"}"
done
if [[ $dry_run ]]; then echo "$manifest"; else kubectl create -f - <<< "$manifest"; fi
