// What the Vulkan backend sets validation layers with, for Vulkan headers before 1.3.272, which do not name it.
#pragma once

#include <vulkan/vulkan_core.h>

#if VK_HEADER_VERSION < 272 && !defined(VK_API_VERSION_1_4)
#include <vector>

namespace vk {
enum class LayerSettingTypeEXT { eBool32 = 0 };

struct LayerSettingEXT {
    const char *        layer;
    const char *        name;
    LayerSettingTypeEXT type;
    uint32_t            count;
    const void *        values;
};

struct LayerSettingsCreateInfoEXT {
    VkStructureType         type = (VkStructureType) 1000496000;
    const void *            next = nullptr;
    uint32_t                count;
    const LayerSettingEXT * settings;

    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & all)
        : count((uint32_t) all.size()), settings(all.data()) {}
};
}  // namespace vk
#endif
