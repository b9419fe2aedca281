{
  # node-gyp and a bare node-gyp-build come in here; CMake does the work.
  "targets": [
    {
      "target_name": "vsa",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/vsa.node"],
          "action": ["node", "scripts/build-native.mjs"]
        }
      ]
    }
  ]
}
