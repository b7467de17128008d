// The libraries as they are published, CommonJS, at /modules/: require('swr').
window.process = { env: { NODE_ENV: 'production' } };
{
  const entries = {
    'react': 'react/cjs/react.production.js',
    'react-dom': 'react-dom/cjs/react-dom.production.js',
    'react-dom/client': 'react-dom/cjs/react-dom-client.production.js',
    'scheduler': 'scheduler/cjs/scheduler.production.js',
    'use-sync-external-store/shim': 'use-sync-external-store/cjs/use-sync-external-store-shim.production.js',
    'dequal/lite': 'dequal/lite/index.js',
    'swr': 'swr/dist/index/index.js',
    'swr/infinite': 'swr/dist/infinite/index.js',
    '@tanstack/query-core': '@tanstack/query-core/build/modern/index.cjs',
  };
  const loaded = {};
  const load = url => {
    if (loaded[url]) return loaded[url].exports;
    const module = loaded[url] = { exports: {} };
    const request = new XMLHttpRequest();
    request.open('GET', url, false);
    request.send();
    const required = name => load(new URL(name[0] === '.' ? name : `/modules/${entries[name]}`, url).href);
    new Function('module', 'exports', 'require', request.responseText)(module, module.exports, required);
    return module.exports;
  };
  window.require = name => load(new URL(`/modules/${entries[name]}`, location.href).href);
}
