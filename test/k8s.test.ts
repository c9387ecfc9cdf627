/**
 * The manifests hold what docs/kubernetes.md promises. An overlay is put together here the way kustomize does it (a
 * patch's maps merge, containers merge by name, other lists replace), so that the test needs no kubectl.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'

const K8S = fileURLToPath(new URL('../../k8s/', import.meta.url))
const read = (file: string) => parse(readFileSync(`${K8S}${file}`, 'utf8')) as Json
// biome-ignore lint/suspicious/noExplicitAny: a manifest is any JSON; the test is what checks its shape.
type Json = any

function merge(base: Json, patch: Json): Json {
  if (Array.isArray(patch)) {
    if (!Array.isArray(base) || patch.some((p) => p?.name === undefined)) return patch
    const named = new Map(base.map((b) => [b.name, b]))
    for (const p of patch) named.set(p.name, merge(named.get(p.name), p))
    return [...named.values()]
  }
  if (patch === null || typeof patch !== 'object' || base === undefined) return patch
  const merged = { ...base }
  for (const [key, value] of Object.entries(patch)) merged[key] = merge(base[key], value)
  return merged
}

/** Settings of the generated ConfigMap: the base's, then the overlay's. */
function settings(...folders: string[]): Json {
  const literals = folders.flatMap(
    (f) => read(`${f}/kustomization.yaml`).configMapGenerator[0].literals as string[],
  )
  return Object.fromEntries(literals.map((l) => [l.slice(0, l.indexOf('=')), l.slice(l.indexOf('=') + 1)]))
}

const base = read('base/daemonset.yaml')

const FLAVOURS = [
  { name: 'base', daemonset: base, config: settings('base'), backend: 'socket', add: undefined },
  ...(['afxdp', 'afpacket'] as const).map((name) => ({
    name,
    daemonset: merge(base, read(`overlays/${name}/capabilities.yaml`)),
    config: settings('base', `overlays/${name}`),
    backend: name === 'afxdp' ? 'xdp' : 'packet',
    add: name === 'afxdp' ? ['NET_RAW', 'NET_ADMIN', 'BPF', 'PERFMON', 'IPC_LOCK'] : ['NET_RAW', 'NET_ADMIN'],
  })),
]

for (const { name, daemonset, config, backend, add } of FLAVOURS) {
  void t.test(name, (t) => {
    const { updateStrategy, minReadySeconds, template } = daemonset.spec
    const pod = template.spec
    const [container, ...others] = pod.containers
    const security = container.securityContext
    t.same(others, [])
    t.notOk(pod.initContainers)

    t.comment('privilege: nothing but the listed capabilities')
    t.equal(pod.securityContext.seccompProfile.type, 'RuntimeDefault')
    t.match(security, {
      runAsUser: 0,
      privileged: false,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
    })
    t.same(security.capabilities.drop, ['ALL'])
    t.same(security.capabilities.add, add)
    for (const capability of add ?? [])
      t.notMatch(capability, /^CAP_/, 'a prefix would silently grant nothing')
    t.notOk(pod.hostPID ?? pod.hostIPC ?? pod.hostUsers)
    t.equal(pod.automountServiceAccountToken, false)
    t.equal(pod.enableServiceLinks, false)
    t.ok(pod.volumes.every((v: Json) => v.hostPath === undefined))

    t.comment('network')
    t.equal(pod.hostNetwork, true)
    t.equal(pod.dnsPolicy, 'ClusterFirstWithHostNet')
    for (const port of container.ports) t.equal(port.hostPort, port.containerPort)
    t.match(container.ports, [{ protocol: 'UDP' }, { name: 'metrics' }])
    t.equal(String(container.ports[0].containerPort), config.MILLRACE_LISTEN)
    t.equal(env(container, 'MILLRACE_HTTP').value, `$(HOST_IP):${container.ports[1].containerPort}`)
    const names = container.env.map((e: Json) => e.name)
    t.ok(names.indexOf('HOST_IP') < names.indexOf('MILLRACE_HTTP'), 'only an earlier variable is expanded')

    t.comment('roll-out')
    t.same(updateStrategy, { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } })
    t.ok(minReadySeconds >= 10)
    t.ok(pod.terminationGracePeriodSeconds * 1000 > Number(config.MILLRACE_DRAIN_MS ?? 20_000))
    t.equal(container.readinessProbe.httpGet.path, '/readyz')
    t.equal(container.livenessProbe.httpGet.path, '/healthz')
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe'])
      t.equal(container[probe].timeoutSeconds, 5)
    t.ok(container.startupProbe.failureThreshold * container.startupProbe.periodSeconds >= 60)
    t.equal(pod.priorityClassName, 'system-node-critical')
    t.same(pod.tolerations, [{ operator: 'Exists' }])
    t.match(pod.nodeSelector, { 'kubernetes.io/os': 'linux', millrace: 'true' })

    t.comment('resources and configuration')
    t.equal(container.resources.limits.memory, container.resources.requests.memory)
    t.equal(container.resources.limits.cpu, undefined)
    t.equal(config.MILLRACE_BACKEND, backend)
    t.same(container.envFrom, [{ configMapRef: { name: 'millrace' } }])
    t.equal(env(container, 'NODE_NAME').valueFrom.fieldRef.fieldPath, 'spec.nodeName')
    t.match(template.metadata.labels, daemonset.spec.selector.matchLabels)
    t.end()
  })
}

void t.test('namespace and account', (t) => {
  t.equal(read('base/namespace.yaml').metadata.labels['pod-security.kubernetes.io/enforce'], 'privileged')
  t.equal(read('base/serviceaccount.yaml').automountServiceAccountToken, false)
  t.equal(base.spec.template.spec.serviceAccountName, read('base/serviceaccount.yaml').metadata.name)
  const listed = read('base/kustomization.yaml').resources
  t.same(listed, ['namespace.yaml', 'serviceaccount.yaml', 'daemonset.yaml'])
  t.end()
})

function env(container: Json, name: string): Json {
  return container.env.find((e: Json) => e.name === name)
}
